"""A run that is asked to end: no stack of any library, its own exit code, and what to type next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE_S = 240


@pytest.mark.slow
@pytest.mark.parametrize("engine, sent", [("flower", signal.SIGTERM), ("local", signal.SIGINT)])
def test_a_run_that_is_asked_to_end_says_so_and_nothing_else(tmp_path, engine, sent):
    program = Path(sys.executable).with_name("cardionets-sim")
    command = [program, "run", "rehearsal", "--out", "run", "--no-compare", "--no-track", "--engine", engine]
    told = tmp_path / "told"
    # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited: not by this child.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with told.open("wb") as errors:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=errors, stderr=errors)
    signal.signal(signal.SIGINT, before)
    try:
        until = time.monotonic() + PATIENCE_S
        while "round 1/" not in told.read_text() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        os.kill(process.pid, sent)
        assert process.wait(60) == 130
    finally:
        process.kill()
    lines = told.read_text().splitlines()
    assert lines[-1].startswith("stopped; ") and "--resume" in lines[-1]
    assert not [line for line in lines if "Traceback" in line or "SIGTERM received" in line]
    with told.open("wb") as errors:
        resumed = subprocess.run([*command, "--resume"], cwd=tmp_path, stdout=errors, stderr=errors)
    assert resumed.returncode == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"
