"""The README, typed line by line in a copy of the checkout. Minutes each; all of it takes about an hour."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from simulation.deployment import free_ports

sys.path.append(str(Path(__file__).parent))
from commands import ROOT, Reader, blocks_of
from walks import WALKS

pytestmark = pytest.mark.system


@pytest.fixture
def checkout(tmp_path, shared_data):
    """What git knows of the checkout, the environment under test and the shared data beside it."""
    copy = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    (tmp_path / "shared").symlink_to(shared_data.parent)
    return copy


@pytest.fixture
def reader(checkout, request):
    """Somebody who stands in the checkout and types the blocks of the walk that the test is marked with."""
    walk = request.node.get_closest_marker("walk").args[0]
    return Reader(blocks_of(WALKS[walk]), folder=checkout, environment={**os.environ, "COLUMNS": "120"})


def result_of(reader, run):
    return json.loads((reader.folder / "runs" / run / "result.json").read_text())


@pytest.mark.walk("first")
def test_two_minutes_for_each_of_the_three(reader):
    reader.type("make setup")
    assert "completed" in reader.type(".venv/bin/cardionets-sim run rehearsal")
    assert (reader.folder / "runs/first/report.html").is_file()
    assert list((reader.folder / "runs/first/plots").glob("*.png"))
    assert "accepted" in reader.type(".venv/bin/cardionets-client inspect runs/first")
    assert "no problems" in reader.type(".venv/bin/cardionets-client check")
    assert (reader.folder / "runs/sample.png").is_file()
    assert "ecg_mae" in reader.type(".venv/bin/cardionets-server plan demo")
    page = reader.page(".venv/bin/cardionets-server watch runs/first --web")
    assert result_of(reader, "first")["model_digest"][:12] in page
    reader.type(".venv/bin/cardionets-client prepare")
    reader.type(".venv/bin/cardionets-client prepare")
    reader.type(".venv/bin/cardionets-client journal")
    reader.type(".venv/bin/cardionets-client inspect ../shared")
    reader.type(".venv/bin/cardionets-client inspect ../shared")
    assert reader.left == []


@pytest.mark.walk("simulation")
def test_compare_and_sweep(reader):
    reader.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for word in ("show", "compare", "sweep"):
        reader.type(f".venv/bin/cardionets-sim {word}")
    for name in ("compared", "swept"):
        shutil.rmtree(reader.folder / "runs" / name)
    assert "attacked" in reader.type("cardionets-sim scenarios")
    assert "s01" in reader.type("cardionets-sim show")
    assert "left out" in reader.type("cardionets-sim run attacked")
    assert "fedprox" in reader.type("cardionets-sim compare")
    assert "temperature" in reader.type("cardionets-sim sweep")
    (port,) = free_ports(1)
    with reader.running("mlflow ui", more=f"--port {port}") as process:
        assert any("Uvicorn running" in line or "startup complete" in line for line in process.stdout)
    assert reader.left == []


@pytest.mark.walk("demo")
def test_the_demo(reader):
    reader.type("make demo")
    assert result_of(reader, "demo")["comparison"]
    assert reader.left == []


@pytest.mark.walk("engines")
def test_the_researcher_s_first_lines(reader):
    assert "rehearsal" in reader.type(".venv/bin/cardionets-sim scenarios")
    told = reader.type(".venv/bin/cardionets-sim run demo")
    assert result_of(reader, "mine")["model_digest"] in told
    assert reader.left == []


@pytest.mark.walk("all phases")
def test_all_phases_and_what_follows(reader):
    reader.type(".venv/bin/cardionets-sim run cardionets")
    assert result_of(reader, "all")["status"] == "completed"
    reader.type(".venv/bin/cardionets-client predict")
    assert list((reader.folder / "runs/cines").rglob("*.png"))
    reader.type(".venv/bin/cardionets-server release")
    assert "unsigned" in reader.type(".venv/bin/cardionets-client predict")
    assert reader.left == []


@pytest.mark.walk("real recordings")
def test_real_recordings(reader):
    reader.type(".venv/bin/cardionets-sim run real_ecg")
    assert result_of(reader, "real")["status"] == "completed"
    assert reader.left == []


@pytest.mark.walk("flower's own command")
def test_flowers_own_command(reader):
    script = "\n".join(reader.said(line) for _, line in reader.left)
    before = set(psutil.pids())
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=reader.folder, capture_output=True, text=True,
            timeout=1800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        for _ in range(60):
            if (reader.folder / "runs/flwr-demo/result.json").is_file():
                break
            time.sleep(1)
        assert result_of(reader, "flwr-demo")["status"] == "completed"
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it may have ended by itself meanwhile
                if process.pid not in before and "flower-superlink" in " ".join(process.cmdline()):
                    process.terminate()
