"""A real SuperLink and the site's real SuperNode: code that IT did not approve does not run (make system).

The app is a few lines, so that what happens is Flower's and the guard's: its ServerApp asks the one site and
writes down what came back.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.approvals import ApprovalStore

pytestmark = pytest.mark.system
INVALID_FAB = 7
WAIT_S = 120
PROJECT = """
[project]
name = "asking"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "asking.server:app"
clientapp = "asking.site:app"
[tool.flwr.app.config]
out = ""
times = 1
"""
SERVER = """
import json, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    out = Path(context.run_config["out"])
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    for number in range(int(context.run_config["times"])):
        while number and not out.with_suffix(f".go{number}").exists():
            time.sleep(0.1)
        asked = Message(RecordDict({"c": ConfigRecord({"x": 1})}), dst_node_id=nodes[0], message_type="query")
        (reply,) = grid.send_and_receive([asked], timeout=90)
        found = {"code": reply.error.code if reply.has_error() else None}
        if not reply.has_error():
            found["said"] = reply.content["c"]["said"]
        part = out.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.rename(out.with_suffix(f".{number}"))
"""
SITE = """
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
import sys
app = ClientApp()

@app.query()
def answer(message, context):
    said = "client" in sys.modules and sys.modules["client"].__file__ or "ran"
    return Message(RecordDict({"c": ConfigRecord({"said": said})}), reply_to=message)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@dataclass
class Federation:
    """A SuperLink and one guarded SuperNode, each with a home of its own."""

    folder: Path
    app: Path
    store: ApprovalStore
    start_node: Callable[..., None]

    def environment(self, home: str) -> dict[str, str]:
        return {
            **os.environ,
            # Flower starts its own programs by their names.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FLWR_HOME": str(self.folder / home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        }

    def run(self, name: str, *, times: int = 1) -> Path:
        """Start a run; returns the stem of the files in which the ServerApp writes what came back."""
        out = self.folder / f"{name}.out"
        self.begin(f'out="{out}" times={times}')
        return out

    def begin(self, config: str) -> None:
        """Start a run with a run config."""
        done = subprocess.run(
            [program("flwr"), "run", str(self.app), "test", "-c", config],
            env=self.environment("coordinator"),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def came(self, out: Path, number: int = 0) -> dict:
        """What the ServerApp wrote of its question of this number."""
        path, end = out.with_suffix(f".{number}"), time.monotonic() + WAIT_S
        while not path.exists():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)
        return json.loads(path.read_text())

    def unpacked(self) -> list[str]:
        """What lies unpacked on the site."""
        return sorted(path.name for path in (self.folder / "site" / "apps").glob("*"))

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-6000:]}" for path in sorted(self.folder.glob("*.log"))
        )


def write_app(folder: Path, *, site: str = SITE) -> None:
    (folder / "asking").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "asking" / "__init__.py").write_text("")
    (folder / "asking" / "server.py").write_text(SERVER)
    (folder / "asking" / "site.py").write_text(site)


def bundle_of(app: Path) -> bytes:
    from flwr.cli.build import build_fab_from_disk

    return build_fab_from_disk(app)


@pytest.fixture
def federation(tmp_path):
    started: list[subprocess.Popen] = []
    port, runtime = free_port(), free_port()
    (tmp_path / "coordinator").mkdir()
    (tmp_path / "coordinator" / "config.toml").write_text(
        f'[superlink]\ndefault = "test"\n[superlink.test]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    write_app(tmp_path / "asking-app")

    def start(name: str, command: list[str], home: str) -> None:
        with (tmp_path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=made.environment(home),
                stdout=log,
                stderr=log,
                cwd=tmp_path,
                start_new_session=True,
            )
        started.append(process)

    def start_node(*more: str) -> None:
        command = [sys.executable, "-P", "-m", "client.supernode", "--approvals", str(made.store.folder)]
        command += ["--poll=0.2", "--insecure", "--superlink", f"127.0.0.1:{port}"]
        start("supernode", [*command, "--host", "127.0.0.1", "--port", str(runtime), *more], "site")

    made = Federation(
        folder=tmp_path,
        app=tmp_path / "asking-app",
        store=ApprovalStore(tmp_path / "hospital" / "approvals"),
        start_node=start_node,
    )
    link = [program("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", str(port)]
    try:
        start("superlink", [*link, "--disable-runtime-dependency-installation"], "coordinator")
        wait_for(port, made)
        yield made
    finally:
        end(started)


def end(started: list[subprocess.Popen]) -> None:
    """End the processes and theirs: each began a session of its own."""
    for process in reversed(started):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in reversed(started):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(port: int, made: Federation) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    pytest.fail(made.logs())


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_unapproved_code_is_refused_then_runs_and_is_refused_again_when_withdrawn(federation):
    federation.start_node()
    content = bundle_of(federation.app)
    sha256 = hashlib.sha256(content).hexdigest()

    # Not approved: the ServerApp gets Flower's code, nothing is unpacked, and the bundle waits for IT.
    assert federation.came(federation.run("first")) == {"code": INVALID_FAB}, federation.logs()
    assert federation.unpacked() == []
    assert federation.store.pending.codes() == {sha256: content}
    assert "REFUSED" in (federation.folder / "supernode.log").read_text()

    # Approved while the SuperNode runs: the next run is answered by the bundle's own code.
    assert federation.store.approve_code(federation.store.pending.codes()[sha256]) == sha256
    out = federation.run("second", times=2)
    assert federation.came(out) == {"code": None, "said": "ran"}, federation.logs()
    assert len(federation.unpacked()) == 1

    # Withdrawn in the middle of that run: its next message is refused.
    federation.store.withdraw(sha256)
    out.with_suffix(".go1").touch()
    assert federation.came(out, 1) == {"code": INVALID_FAB}, federation.logs()


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_changed_code_and_a_broken_record_are_refused(federation):
    federation.start_node()
    approved = federation.store.approve_code(bundle_of(federation.app))

    # One byte more in one file: another bundle.
    write_app(federation.app, site=SITE + "\n")
    assert federation.came(federation.run("changed")) == {"code": INVALID_FAB}, federation.logs()
    assert federation.unpacked() == [] and approved not in federation.store.pending.codes()

    # The very bundle that was approved, but the record was tampered with.
    write_app(federation.app)
    record = federation.store.folder / "store.jsonl"
    whole = record.read_text()
    record.write_text(whole.replace(approved, "0" * 64))
    assert federation.came(federation.run("broken")) == {"code": INVALID_FAB}, federation.logs()
    assert federation.unpacked() == []

    record.write_text(whole)
    assert federation.came(federation.run("mended")) == {"code": None, "said": "ran"}, federation.logs()


# -- the real package --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """One hospital with a prepared cache."""
    from cardionets_core.config.site import read_site
    from cardionets_core.data.prepare import prepare
    from simulation.make import make_hospitals
    from simulation.scenario import Scenario

    split = {"validation": 0.2, "test": 0.2}
    policy = {"minimum_patients": 5, "minimum_cell": 1}
    site = {"site": "beta", "layout": "mimic_iv_ecg", "patients": 14, "split": split, "policy": policy}
    content = {"name": "one", "seed": 3, "hospitals": [site], "study": study_content()}
    (path,) = make_hospitals(
        Scenario.model_validate(content), tmp_path_factory.mktemp("hospitals"), workers=1
    )
    prepare(read_site(path))
    return path


def study_content() -> dict:
    phase = {"task": "ecg_mae", "rounds": 1, "local_steps": 1, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    sites = {"minimum": 1, "deadline_s": 60, "attempts": 1}
    return {"name": "one", "seed": 1, "sites": sites, "phases": [phase]}


def test_the_real_package_serves_approved_studies_only(federation, hospital):
    from cardionets_core.config.study import Study
    from cardionets_core.config.workspace import Workspace
    from server.bundle import build_bundle

    study = Study.model_validate(study_content())
    document = federation.folder / "study.json"
    document.write_text(study.to_json())
    bundle = build_bundle(Workspace(federation.folder / "workspace"))
    federation.app = bundle.app
    federation.store = ApprovalStore(hospital.parent / "approvals")
    federation.start_node("--node-config", f'site-config="{hospital}"')
    federation.store.approve_code(bundle.path.read_bytes())

    def result(name: str) -> dict:
        out = federation.folder / name
        federation.begin(f'study="{document}" out="{out}" track=false')
        end = time.monotonic() + 2 * WAIT_S
        while not (out / "result.json").exists():
            assert time.monotonic() < end, federation.logs()
            time.sleep(0.2)
        return json.loads((out / "result.json").read_text())

    # The approved code runs, and refuses the study before it looks at data; the study waits for IT.
    assert result("first")["status"] == "paused"
    assert list(federation.store.pending.studies()) == [study.digest], federation.logs()
    assert "is not approved on this site" in (hospital.parent / "client.log").read_text()

    federation.store.approve_study(study.to_json())
    done = result("second")
    assert done["status"] == "completed", federation.logs()
    assert [row["site"] for row in done["rounds"][0]["sites"]] == ["beta"]
    assert [path for path in federation.unpacked() if "cardionets" in path]
