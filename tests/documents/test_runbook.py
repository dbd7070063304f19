"""The runbook and its neighbours, typed line by line on one machine: a coordinator and a hospital over TLS.

The dress rehearsal has a test of its own (``tests/system/test_rehearsal.py``); lines that need root, an empty
machine and the network (wheels, accounts) are not typed, see ``test_every_block_is_typed``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from cardionets_core.config.workspace import Workspace
from cardionets_core.service.state import end_tree, living, running_service
from server.link.wanted import RUN, read_wanted
from simulation.deployment import free_ports
from simulation.make import make_hospitals
from simulation.scenario import Scenario

sys.path.append(str(Path(__file__).parent))
from commands import Reader, blocks_of
from walks import WALKS

pytestmark = pytest.mark.system
STUDY = {
    "name": "first",
    "seed": 1,
    "sites": {"minimum": 1, "deadline_s": 300},
    "phases": [
        {"task": "ecg_mae", "rounds": 2, "local_steps": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}},
        {"task": "probe", "rounds": 1},
    ],
}
HOSPITAL = {
    "site": "riverside",
    "layout": "local_wfdb",
    "patients": 24,
    "split": {"validation": 0.2, "test": 0.2},
    "policy": {"minimum_patients": 5, "minimum_cell": 1},
    "scanner": {"spacing_mm": 2.2, "pixels": 80, "frames": 20},
}


@pytest.fixture
def shell(tmp_path):
    """An environment whose programs are those under test."""
    programs = Path(sys.executable).parent
    found = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    yield found
    for folder in (*tmp_path.glob("*/service"), *tmp_path.glob("*/state")):
        content = running_service(folder)
        if content and (process := living(content["supervisor"])):
            end_tree(process, grace_s=10)


@pytest.fixture
def hospital(tmp_path):
    """A hospital's folder with its data."""
    scenario = Scenario.model_validate(
        {"name": "runbook", "seed": 3, "hospitals": [HOSPITAL], "study": STUDY}
    )
    (document,) = make_hospitals(scenario, tmp_path / "made", workers=1)
    return document.parent


def settle(folder: Path, ports: list[int], **changes: object) -> None:
    """What both sides change in their documents on a machine that they share."""
    for name, keys in (
        ("server.yaml", ("inner_port", "health_port")),
        ("connection.yaml", ("runtime_port", "health_port")),
    ):
        path = folder / name
        if path.is_file():
            content = yaml.safe_load(path.read_text()) | dict(zip(keys, ports, strict=True)) | changes
            path.write_text(yaml.safe_dump(content))


def finish(reader: Reader) -> dict:
    """Wait for the result of the coordinator's newest run."""
    for _ in range(1200):
        found = list(reader.folder.glob("*/runs/*/result.json"))
        if found:
            return json.loads(found[0].read_text())
        time.sleep(0.25)
    raise AssertionError("the study gave no result")


def test_the_readme_from_init_to_the_model(tmp_path, shell, hospital):
    reader = Reader(blocks_of(WALKS["consortium"]), folder=tmp_path, environment=shell)
    outer, *ports = free_ports(5)
    reader.names = {"hub.example.org:9092": f"127.0.0.1:{outer}", "northfield": "riverside"}
    reader.type("cardionets-server init")
    settle(tmp_path / "hub", ports[:2], listen_host="127.0.0.1", minimum_free_bytes=0)
    (tmp_path / "hub" / "study.yaml").write_text(yaml.safe_dump(STUDY))
    reader.type("cardionets-server plan")
    reader.type("cardionets-server provision")
    reader.type("cardionets-server package")
    shutil.copytree(hospital, tmp_path / "site", copy_function=shutil.copy2)
    reader.type("cardionets-client request")
    shutil.copy(tmp_path / "site" / "riverside.request", tmp_path)
    reader.type("cardionets-server admit", answer="y\n")
    shutil.copy(tmp_path / "hub" / "kits" / "riverside-kit.zip", tmp_path)
    reader.type("cardionets-client init")
    settle(tmp_path / "site", ports[2:])
    subprocess.run(
        ["cardionets-client", "prepare", "--site", "site/site.yaml"], cwd=tmp_path, env=shell, check=True
    )
    reader.type("cardionets-server start")
    assert "no problems" in reader.type("cardionets-client check")
    reader.type("cardionets-client rehearse")
    reader.type("cardionets-client approve", answer="y\ny\n")
    with subprocess.Popen(
        ["bash", "-c", "exec " + reader.take("cardionets-client start")], cwd=tmp_path, env=shell
    ) as service:
        try:
            reader.type("cardionets-client status")
            reader.type("cardionets-server run")
            assert "completed" in reader.type("cardionets-server watch")
            assert "riverside" in reader.page("cardionets-server watch hub --web")
            assert "riverside" in reader.type("cardionets-server sites")
        finally:
            service.terminate()
    assert finish(reader)["status"] == "completed"
    assert reader.left == []


def test_the_runbook_line_by_line(tmp_path, shell, hospital):
    reader = Reader(blocks_of(WALKS["runbook"]), folder=tmp_path, environment=shell)
    outer, *ports = free_ports(5)
    reader.names = {
        "hub.example.org:9092": f"127.0.0.1:{outer}",
        "DIR": "hub",
        "FOLDER": "hospital",
        "NAME": "riverside",
        "OTHER": "lakeside",
    }
    # the first day of both
    reader.type("cardionets-server init")
    settle(tmp_path / "hub", ports[:2], listen_host="127.0.0.1", minimum_free_bytes=0)
    (tmp_path / "hub" / "study.yaml").write_text(yaml.safe_dump(STUDY))
    reader.type("cardionets-server plan DIR")
    reader.type("cardionets-server plan DIR --approve")
    authority = reader.type("cardionets-server provision DIR")
    reader.type("cardionets-server package DIR")
    shutil.copytree(hospital, tmp_path / "hospital", copy_function=shutil.copy2)
    reader.type("cardionets-client request")
    request = tmp_path / "hospital" / "riverside.request"
    shutil.copy(request, tmp_path)
    asked = reader.type("cardionets-server admit DIR NAME.request", answer="n\n", code=2)
    reader.names["19c9 318c ..."] = spoken(asked)
    reader.type("cardionets-server admit DIR NAME.request --fingerprint")
    shutil.copy(tmp_path / "hub" / "kits" / "riverside-kit.zip", tmp_path)
    reader.names["e8f9 555f ..."] = spoken(authority)
    reader.type("cardionets-client init FOLDER --kit NAME-kit.zip")
    reader.type("cardionets-client init FOLDER --kit NAME-kit.zip --fingerprint")
    settle(tmp_path / "hospital", ports[2:])
    reader.type("cardionets-client prepare")

    # the site looks at what it is asked to approve
    site = tmp_path / "hospital"
    reader.names |= {"KIT.zip": "riverside-kit.zip", " approve .": " approve hospital"}
    reader.names |= {"study.yaml": "../hub/study.yaml", "site.yaml --study": "hospital/site.yaml --study"}
    shown = reader.type("cardionets-client approve . --package", code=5)
    reader.names["SHA256"] = re.search(r"\b[0-9a-f]{64}\b", shown)[0]
    reader.type("cardionets-client approve . --yes --only", code=5)  # the study waits still
    reader.type("cardionets-client approve . --withdraw")
    reader.type("cardionets-client approve .", answer="y\ny\n")
    reader.names["study.yaml"] = "hub/study.yaml"
    reader.type("cardionets-client rehearse")

    # a study, paused and gone on with
    for program, folder in (("cardionets-server", "hub"), ("cardionets-client", "hospital")):
        subprocess.run(
            [program, "start", folder, "--background"], cwd=tmp_path, env=shell, check=True, timeout=300
        )
    reader.type("cardionets-client check")
    reader.type("cardionets-server run DIR")
    reader.type("cardionets-server pause DIR")
    finish(reader)
    # The service takes up what the study wrote within seconds.
    while read_wanted(Workspace(tmp_path / "hub")).wanted == RUN:
        time.sleep(0.25)
    assert "paused" in reader.type("cardionets-server status DIR")
    reader.type("cardionets-server resume DIR")
    told = reader.type("cardionets-server watch DIR")
    assert finish(reader)["status"] == "completed", told

    # what both see of it
    (run,) = (tmp_path / "hub" / "runs").iterdir()
    reader.names["NAME-DIGEST"] = run.name
    assert json.loads((run / "result.json").read_text())["model_digest"][:12] in reader.page(
        "cardionets-server watch DIR --web"
    )
    assert "riverside" in reader.page("cardionets-client status FOLDER --web")
    reader.type("cardionets-client status FOLDER --page")
    assert json.loads(reader.type("cardionets-client status FOLDER --format json"))["site"] == "riverside"
    reader.type("cardionets-client logs FOLDER --level warning")
    with reader.running("cardionets-client logs FOLDER --follow"):
        assert "reply-left" in reader.type("cardionets-client logs FOLDER")
    reader.type("cardionets-client logs FOLDER --since")
    reader.type("cardionets-client logs FOLDER --format json")
    reader.names["URI"] = f"sqlite:///{tmp_path}/elsewhere.db"
    reader.type("cardionets-server track DIR --dry-run")
    reader.type("cardionets-server track DIR --uri")
    reader.type("cardionets-server track DIR")
    with reader.running("mlflow ui", more=f"--port {free_ports(1)[0]}") as process:
        assert any("Uvicorn running" in line or "startup complete" in line for line in process.stdout)

    # the model is handed over
    reader.names["ca.crt"] = "hub/trust/ca.crt"
    for _ in range(2):
        reader.type("cardionets-server release DIR")
    for _ in range(2):
        reader.type("cardionets-server release DIR --out heads-1.zip")
    with zipfile.ZipFile(tmp_path / "heads-1.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    reader.folder = tmp_path / "unpacked"
    assert "FAILED" not in reader.type("sha256sum -c")
    reader.folder = tmp_path
    reader.type("cardionets-server verify-release")
    reader.names["ECG"] = str(next((tmp_path / "hospital").rglob("*.hea")).relative_to(tmp_path))
    assert "phenotype" in reader.type("cardionets-client predict").lower()
    del reader.names["ECG"]

    # the journals against each other
    reader.type("cardionets-server journal DIR/runs/NAME-DIGEST export-heads")
    reader.type("cardionets-client journal verify")

    # privacy: a roster needs a second site; what would be spent, what was
    reader.names["NAME"] = "farside"
    reader.type("cardionets-server provision DIR --site")
    reader.names["NAME"] = "riverside"
    assert "threshold" in reader.type("cardionets-server roster DIR")
    for _ in range(2):
        reader.type("cardionets-server plan DIR --patients")
        reader.type("cardionets-client budget")

    # renewed, lost, and back
    reader.type("cardionets-server renew DIR --site")
    reader.type("cardionets-server renew DIR --server")
    reader.type("cardionets-server revoke DIR", answer="y\n")
    shutil.rmtree(site / "trust", ignore_errors=True)
    subprocess.run(
        ["cardionets-client", "request", "--site", "riverside", "--out", "again"],
        cwd=tmp_path, env=shell, check=True,
    )  # fmt: skip
    shutil.copy(tmp_path / "again" / "riverside.request", tmp_path)
    reader.type("cardionets-server admit DIR NAME.request --readmit", answer="y\n")
    assert reader.left == []


def spoken(text: str) -> str:
    """The fingerprint that a text holds, as one reads it out on the telephone."""
    return re.search(r"([0-9a-f]{4} ){3,}[0-9a-f]{4}", text)[0]
