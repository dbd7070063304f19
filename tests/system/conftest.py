"""A real deployment for a whole test session: a coordinator and three hospitals, on loopback, over TLS.

Hospitals are made and indexed once. Each study is told apart by its seed; what an undisturbed run of it gives
is found in this process, on a copy of the hospitals.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import ServiceDownError
from cardionets_core.service.state import living, running_service
from client.approvals import ApprovalStore
from server.link.wanted import WANTED
from server.overview import overview
from server.progress import silent
from simulation.deployment import Deployment
from simulation.flower import run_locally
from simulation.make import make_hospitals
from simulation.rough import Wire, fill, small_disk
from simulation.scenario import Scenario

SCANNER = {"spacing_mm": 2.2, "pixels": 80, "frames": 20}
SMALL = {"repeat_share": 0.2, "split": {"validation": 0.2, "test": 0.3}}
POLICY = {"minimum_patients": 5, "minimum_cell": 1}
HOSPITALS = (
    {"site": "alpha", "layout": "uk_biobank", "patients": 40, "scanner": SCANNER, "views": ["4ch", "sax"]},
    {"site": "beta", "layout": "mimic_iv_ecg", "patients": 20},
    {"site": "gamma", "layout": "local_csv", "patients": 20, "scanner": SCANNER},
)
SITES = tuple(str(hospital["site"]) for hospital in HOSPITALS)
ROUND_S = 240.0
"""A round of three sites on a busy two-core machine, with every process start; a bound, not a measurement."""
STUDY_S = 1200.0
"""A study of three rounds with a fault in it; a bound too."""


def small_study(seed: int, **changes: Any) -> dict[str, Any]:
    """Three rounds of a cheap phase; all three sites must serve, so what survives gives the same model."""
    phase = {
        "task": "ecg_mae", "rounds": 3, "local_steps": 4, "batch_size": 8, "optimiser": {"lr": 1e-3}
    }  # fmt: skip
    study = {
        "name": "system",
        "seed": seed,
        "sites": {"minimum": 3, "deadline_s": 300, "attempts": 6},
        "phases": [phase],
        **changes,
    }
    return Study.model_validate(study).model_dump(mode="json")


def copy_hospital(source: Path, target: Path) -> None:
    """A hospital's data and document, without its place in a federation."""
    of_federation = ("trust", "connection.yaml", "approvals", "node", "logs", "service", "package", "state")
    ignored = shutil.ignore_patterns(*of_federation, "*.request")
    shutil.copytree(source, target, ignore=ignored, copy_function=shutil.copy2, dirs_exist_ok=True)


class Field(Deployment):
    """The deployment, with what tests do to it."""

    sites_in_order = SITES

    @staticmethod
    def small_study(seed: int, **changes: Any) -> dict[str, Any]:
        """See above."""
        return small_study(seed, **changes)

    @staticmethod
    def kill(process: psutil.Process | int) -> None:
        """kill -9."""
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            os.kill(process if isinstance(process, int) else process.pid, signal.SIGKILL)

    @staticmethod
    def until(true: Callable[[], Any], *, seconds: float = ROUND_S) -> Any:
        """Look often until something is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # A process that was killed is not there until its service has started it again.
            with contextlib.suppress(psutil.Error, ServiceDownError):
                if found := true():
                    return found
            time.sleep(0.05)
        raise AssertionError("waited in vain")

    def status(self) -> dict[str, Any]:
        """What ``cardionets-server status`` says, without the second that its process takes."""
        return overview(self.workspace)

    def start(self, *, sites: Sequence[str] | None = None) -> None:
        """Everybody who is not at work yet starts, all at the same time."""
        names = sites if sites is not None else list(self.sites)
        down = [name for name in names if not running_service(self.site(name).service)]
        with ThreadPoolExecutor() as pool:
            started = [pool.submit(self.start_site, name) for name in down]
            if not running_service(self.workspace.state):
                started.append(pool.submit(self.start_server))
        for one in started:
            one.result()

    def set_study(self, study: dict[str, Any], *, approve: bool = True) -> Study:
        """Put a study into the workspace, and approve it at every site."""
        (self.server / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        model = Study.model_validate(study)
        if approve:
            for folder in self.sites.values():
                ApprovalStore(folder / "approvals").approve_study(model.to_json())
        return model

    def begin(self, study: dict[str, Any], *, approve: bool = True) -> Path:
        """Begin a study; returns its run folder."""
        model = self.set_study(study, approve=approve)
        self.run("cardionets-server", "run", self.server, "--no-track", "--approve")
        return self.workspace.runs / f"{model.name}-{model.digest[:12]}"

    def outcome(self, *, seconds: float) -> dict[str, Any]:
        """Wait for the end of the study; returns its part of the status."""

        def ended() -> dict[str, Any] | None:
            study = self.status()["study"]
            return study if study["state"] in ("completed", "paused", "failed") else None

        found = self.wait(ended, seconds=seconds, what="the study ends")
        return dict(found)

    @staticmethod
    def in_second_round(out: Path) -> bool:
        """Whether the first round is kept."""
        return (out / "checkpoints" / "00-00001" / "state.json").exists()

    def check_whole(
        self, out: Path, study: dict[str, Any], undisturbed: Callable[[dict[str, Any]], str]
    ) -> dict[str, Any]:
        """The study completed, every round once by every site, with the model of an undisturbed run.

        Beta has no cines and sits a phase out that needs them.
        """
        assert self.outcome(seconds=STUDY_S)["state"] == "completed"
        result = dict(json.loads((out / "result.json").read_text()))
        assert result["status"] == "completed"
        due = [(phase["task"], number + 1) for phase in study["phases"] for number in range(phase["rounds"])]
        assert [(entry["task"], entry["round"]) for entry in result["rounds"]] == due
        for entry in result["rounds"]:
            trained = [row["site"] for row in entry["sites"] if row["status"] == "trained"]
            serving = set(SITES) - {"beta"} if entry["task"] == "cmr_mae" else set(SITES)
            assert sorted(trained) == sorted(serving)
        assert result["model_digest"] == undisturbed(study)
        return result

    def children(self, owner: str, word: str) -> list[psutil.Process]:
        """Processes of a service whose command line holds a word."""
        folder = self.workspace.state if owner == "server" else self.site(owner).service
        content = running_service(folder)
        supervisor = living(content["supervisor"]) if content else None
        found = []
        for process in supervisor.children(recursive=True) if supervisor else []:
            with contextlib.suppress(psutil.Error):
                if any(word in part for part in process.cmdline()):
                    found.append(process)
        return found

    def orders_in_work(self, site: str) -> list[psutil.Process]:
        """The processes that answer orders at a site: forks of the warm one."""
        return [
            process for process in self.children(site, "client.warm")
            if process.pid != self.process(site, "warm")
        ]  # fmt: skip

    def add_site(self, name: str, folder: Path, *, like: str) -> None:
        """A further hospital, as yet unknown to the coordinator, with a copy of another's data."""
        copy_hospital(self.sites[like], folder)
        shutil.rmtree(folder / "cache")
        document = yaml.safe_load((folder / "site.yaml").read_text()) | {"site": name}
        (folder / "site.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        prepare(read_site(folder / "site.yaml"))
        self.sites = {**self.sites, name: folder}

    def remove_site(self, name: str) -> None:
        """End a hospital's service and forget the hospital."""
        self.run("cardionets-client", "stop", self.sites[name], check=False)
        self.sites = {key: path for key, path in self.sites.items() if key != name}

    def row(self, name: str) -> dict[str, Any]:
        """A site's row of the status."""
        return dict(next(site for site in self.status()["sites"] if site["site"] == name))

    def kill_everything(self) -> None:
        """A power cut: nobody gets to say anything."""
        doomed = []
        for folder in (self.workspace.state, *(self.site(name).service for name in self.sites)):
            content = running_service(folder)
            supervisor = living(content["supervisor"]) if content else None
            if supervisor is not None:
                doomed += [supervisor, *supervisor.children(recursive=True)]
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(doomed, timeout=10)


class RoughField(Field):
    """Gamma lives behind a wire of its own; the coordinator and beta have small disks."""

    wire: Wire

    def command(self, program: str, arguments: Sequence[str]) -> list[str]:
        """Whatever gamma's IT types, it types on gamma's machine."""
        typed = super().command(program, arguments)
        gamma = str(self.sites["gamma"])
        if program == "cardionets-client" and any(gamma in argument for argument in arguments):
            return self.wire.inside(typed)
        return typed

    def fill_disk(self, owner: str) -> Path:
        """Leave not one byte on the disk of the server or of beta; returns what to delete."""
        return fill(self.server.parent if owner == "server" else self.sites[owner])


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three indexed hospitals."""
    folder = tmp_path_factory.mktemp("hospitals")
    content = {
        "name": "system",
        "seed": 3,
        "hospitals": [{**hospital, **SMALL, "policy": POLICY} for hospital in HOSPITALS],
        "study": small_study(1),
    }
    made = make_hospitals(Scenario.model_validate(content), folder, workers=2)
    for path in made:
        prepare(read_site(path))
    return {path.parent.name: path.parent for path in made}


@pytest.fixture(scope="session")
def copies(hospitals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Documents of a copy of the hospitals, for runs in this process."""
    folder = tmp_path_factory.mktemp("copies")
    for name, path in hospitals.items():
        shutil.copytree(path, folder / name, copy_function=shutil.copy2)
    return [folder / name / "site.yaml" for name in SITES]


@pytest.fixture(scope="session")
def undisturbed(
    copies: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any]], str]:
    """The model digest of a study without any disturbance."""

    def digest(study: dict[str, Any]) -> str:
        folder = tmp_path_factory.mktemp("undisturbed")
        result = run_locally(Study.model_validate(study), copies, folder=folder, progress=silent, track=False)
        return str(result["model_digest"])

    return digest


@pytest.fixture(scope="session")
def on_flowers_engine(
    copies: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[dict[str, Any]], str]:
    """The model digest of a study on Flower's simulation engine, in a process of its own."""

    def digest(study: dict[str, Any]) -> str:
        folder = tmp_path_factory.mktemp("engine")
        for path in copies:
            shutil.rmtree(
                path.parent / "state", ignore_errors=True
            )  # nothing is answered from what was stored
        (folder / "study.json").write_text(Study.model_validate(study).to_json(), encoding="utf-8")
        subprocess.run([sys.executable, "-c", ON_FLOWERS_ENGINE, folder, *copies], check=True, timeout=600)
        return str(json.loads((folder / "result.json").read_text())["model_digest"])

    return digest


ON_FLOWERS_ENGINE = """
import sys
from pathlib import Path
from cardionets_core.config.study import Study
from server.progress import silent
from simulation.flower import run_on_flower
folder, *sites = map(Path, sys.argv[1:])
study = Study.model_validate_json((folder / "study.json").read_text())
run_on_flower(study, sites, folder=folder, progress=silent, track=False, cores=2)
"""


@pytest.fixture(scope="session")
def made_field(
    hospitals: dict[str, Path], copies: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Field]:
    """The deployment, set up and not started."""
    field = Field(server=tmp_path_factory.mktemp("coordinator") / "study", sites=hospitals)
    field.set_up(small_study(1))
    try:
        yield field
    finally:
        field.stop()


@pytest.fixture
def field(made_field: Field) -> Field:
    """The deployment, up and idle."""
    up(made_field)
    return made_field


def up(made: Field) -> None:
    """Every service at work and no study: what a test has ended or left behind is started anew."""
    if made.status()["study"]["state"] not in ("not begun", "completed", "paused", "failed"):
        made.stop()
        (made.workspace.state / WANTED).unlink()
    made.start()
    made.wait(
        lambda: all(made.row(name)["connected"] for name in SITES),
        seconds=120,
        what="all sites are connected",
    )


@pytest.fixture(scope="session")
def made_rough_field(
    hospitals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RoughField]:
    """A deployment on small disks, with one hospital behind a wire of its own; set up and not started."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces and file systems need root and iproute2")
    base = tmp_path_factory.mktemp("rough")
    sites = {name: base / name for name in SITES}
    number = os.getpid() % 250
    wire = Wire(f"cardionets{number}", network=f"10.203.{number}")
    with small_disk(base / "coordinator", megabytes=400), small_disk(base / "beta", megabytes=200), wire.up():
        for name, folder in hospitals.items():
            copy_hospital(folder, sites[name])
            prepare(read_site(sites[name] / "site.yaml"))
        made = RoughField(server=base / "coordinator" / "study", sites=sites, host=wire.host)
        made.wire = wire
        made.set_up(small_study(1))
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def rough_field(made_rough_field: RoughField) -> Iterator[RoughField]:
    """The rough deployment, up and idle."""
    up(made_rough_field)
    try:
        yield made_rough_field
    finally:
        made_rough_field.wire.mend()
