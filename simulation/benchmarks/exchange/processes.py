"""Starts and ends the processes of one federation on loopback: a SuperLink, its SuperExec, the SuperNodes.

Both sides have TLS, registered keys and a database on disk. ``_plain`` starts Flower's own programs as their
manual says; ``_ours`` starts what the two services of this project start.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import ServiceDownError
from cardionets_core.service.state import end_tree
from client.service import QUIET as SITE_QUIET
from client.warm import is_waiting, write_starter
from server.link.control import Control
from server.link.places import SECRET, database, flower_environment, lay_out, server_certificate
from simulation.benchmarks.exchange.bundle import ROOT, Side
from simulation.benchmarks.exchange.keys import make_site_key, make_trust
from simulation.deployment import free_ports

READY_S = 240.0
PLAIN = {
    name: SITE_QUIET[name]
    for name in (
        "FLWR_TELEMETRY_ENABLED",
        "FLWR_DISABLE_UPDATE_CHECK",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
    )
}


@dataclass(slots=True, kw_only=True)
class Federation:
    """A running federation.

    Attributes:
        side: whose.
        workspace: of the coordinator.
        sites: folders of the sites.
        patient: whether bare Flower's SuperLink waits for its database longer than by default.
        running: name to process.
    """

    side: Side
    workspace: Workspace
    sites: Sequence[Path]
    patient: bool = False
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def control(self) -> Control:
        """Flower's own command line."""
        return Control(self.workspace)

    def start(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], *, folder: Path
    ) -> None:
        """Start a process; its output goes to a file of the workspace's logs."""
        with (self.workspace.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(part) for part in command], env=dict(environment), cwd=folder, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def processor_s(self) -> dict[str, float]:
        """Processor seconds so far, of the link, of the ServerApp with its SuperExec, and of all sites."""
        found = {"superlink": 0.0, "serverapp": 0.0, "sites": 0.0}
        for name, process in self.running.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                head = psutil.Process(process.pid)
                for member in (head, *head.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        role = {"superexec": "serverapp"}.get(name, name)
                        found[role if role in found else "sites"] += sum(member.cpu_times()[:4])
        return found

    def log(self, name: str, lines: int = 20) -> str:
        """The end of a process's output."""
        text = (self.workspace.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def check(self) -> None:
        """Whether all live.

        Raises:
            ServiceDownError: one has ended; says what it said last.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                raise ServiceDownError(f"{name} ended with {process.returncode}:\n{self.log(name)}")


@contextlib.contextmanager
def federation(side: Side, folder: Path, *, sites: int, patient: bool = False) -> Iterator[Federation]:
    """Start a federation, and end all of it on leaving.

    Args:
        side: ``flower`` or ``cardionets``.
        folder: empty; everything lies in it.
        sites: how many.
        patient: see ``Federation``.
    """
    workspace = Workspace(folder / "server")
    outer, inner, health = free_ports(3)
    workspace.root.mkdir(parents=True)
    content = {
        "consortium": "benchmark", "address": f"127.0.0.1:{outer}", "listen_host": "127.0.0.1",
        "inner_port": inner, "health_port": health,
    }  # fmt: skip
    workspace.server_yaml.write_text(yaml.safe_dump(content), encoding="utf-8")
    make_trust(workspace.trust)
    lay_out(workspace)
    folders = [folder / f"site-{index}" for index in range(sites)]
    for site in folders:
        make_site_key(site)
    made = Federation(side=side, workspace=workspace, sites=folders, patient=patient)
    try:
        (_ours if side == "cardionets" else _plain)(made)
        yield made
    finally:
        for process in reversed(made.running.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                end_tree(psutil.Process(process.pid), grace_s=5.0)
            process.wait()


def _plain(made: Federation) -> None:
    """Bare Flower by its own programs and defaults."""
    certificate, inner = server_certificate(made.workspace), made.workspace.config().inner_port
    programs, secret = Path(sys.executable).parent, made.workspace.link / SECRET
    server = _environment(made.workspace.link / "home")
    program: list[str | Path] = [programs / "flower-superlink"]
    if made.patient:
        program = [sys.executable, "-P", "-m", "simulation.benchmarks.exchange.patient_superlink"]
        server["PYTHONPATH"] = str(ROOT)
    made.start("superlink", [
        *program, "--host", "127.0.0.1", "--port", str(inner),
        "--ssl-ca-certfile", certificate.ca, "--ssl-certfile", certificate.certificate,
        "--ssl-keyfile", certificate.key, "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--database", database(made.workspace),
        "--isolation", "process", "--superexec-auth-secret-file", secret,
    ], server, folder=made.workspace.root)  # fmt: skip
    _wait_for_link(made, inner)
    made.start("superexec", _superexec(programs, inner, certificate.ca, secret), server,
               folder=made.workspace.root)  # fmt: skip
    for index, site in enumerate(made.sites):
        made.control.register(site / "site.pub", name=site.name)
        made.start(site.name, _supernode(programs, inner, certificate.ca, site, index),
                   _environment(site / "node"), folder=site)  # fmt: skip


def _ours(made: Federation) -> None:
    """What ``cardionets-server start`` and ``cardionets-client start`` run, without their supervisors."""
    workspace, config = made.workspace, made.workspace.config()
    certificate, programs = server_certificate(workspace), Path(sys.executable).parent
    server = {**flower_environment(workspace), "PYTHONPATH": str(ROOT)}
    link = [sys.executable, "-P", "-m", "simulation.benchmarks.exchange.open_superlink"]
    link.append(str(workspace.root))
    made.start("superlink", link, server, folder=workspace.root)
    _wait_for_link(made, config.inner_port)
    made.start(
        "superexec",
        _superexec(programs, config.inner_port, certificate.ca, workspace.link / SECRET),
        server,
        folder=workspace.root,
    )
    for index, site in enumerate(made.sites):
        made.control.register(site / "site.pub", name=site.name)
        node = site / "node"
        node.mkdir()
        environment = {**os.environ, **SITE_QUIET, "FLWR_HOME": str(node), "PYTHONPATH": str(ROOT)}
        path = f"{write_starter(node)}{os.pathsep}{programs}{os.pathsep}{os.environ.get('PATH', '')}"
        environment["PATH"] = path
        made.start(f"{site.name}-warm", [sys.executable, "-P", "-m", "client.warm", node], environment,
                   folder=node)  # fmt: skip
        paced = [sys.executable, "-P", "-m", "simulation.benchmarks.exchange.paced_supernode"]
        arguments = _supernode(programs, config.outer_port, certificate.ca, site, index)[1:]
        made.start(site.name, [*paced, *arguments], environment, folder=node)
    for site in made.sites:
        _wait(made, lambda site=site: is_waiting(site / "node"), what=f"{site.name} warm")  # type: ignore[misc]


def _environment(home: Path) -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    home.mkdir(parents=True, exist_ok=True)
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **PLAIN, "FLWR_HOME": str(home), "PATH": path}


def _superexec(programs: Path, port: int, ca: Path, secret: Path) -> list[str | Path]:
    return [
        programs / "flower-superexec", "--runtime-api-address", f"127.0.0.1:{port}",
        "--root-certificates", ca, "--superexec-auth-secret-file", secret,
    ]  # fmt: skip


def _supernode(programs: Path, port: int, ca: Path, site: Path, index: int) -> list[str | Path]:
    (runtime,) = free_ports(1)
    return [
        programs / "flower-supernode", "--superlink", f"127.0.0.1:{port}", "--root-certificates", ca,
        "--auth-supernode-private-key", site / "site.key", "--host", "127.0.0.1", "--port", str(runtime),
        "--node-config", f'site={index} state="{site}"',
    ]  # fmt: skip


def _wait_for_link(made: Federation, port: int) -> None:
    context = ssl.create_default_context(cafile=str(server_certificate(made.workspace).ca))

    def answers() -> bool:
        try:
            with urllib.request.urlopen(
                f"https://127.0.0.1:{port}/health", timeout=2, context=context
            ) as got:
                return int(got.status) == 200
        except OSError:
            return False

    _wait(made, answers, what="the SuperLink")


def _wait(made: Federation, true: object, *, what: str) -> None:
    end = time.monotonic() + READY_S
    while not true():  # type: ignore[operator]
        made.check()
        if time.monotonic() > end:
            raise ServiceDownError(f"not ready within {READY_S:.0f} s: {what}")
        time.sleep(0.1)
