"""A whole deployment on one machine: coordinator and hospitals as separate folders and processes, over TLS.

Comes in: folders of hospitals (each with its ``site.yaml``) and a study. Goes out: a running federation, made
by the commands that a coordinator and hospital IT type, in their order. For rehearsals, system tests and
benchmarks; everything listens on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import ServiceDownError
from cardionets_core.service.state import end_tree, living, running_service

COMMAND_S = 300.0


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass(slots=True, kw_only=True)
class Done:
    """What a command said.

    Attributes:
        code: exit code.
        stdout: its result.
        stderr: its progress.
    """

    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        """The result as an object."""
        return dict(json.loads(self.stdout))


@dataclass(slots=True, kw_only=True)
class Deployment:
    """One coordinator and some hospitals.

    Attributes:
        server: the coordinator's folder.
        sites: site to its folder.
        host: where sites reach the coordinator.
        told: called with every command line before it is run.
        environment: more variables for every command.
    """

    server: Path
    sites: Mapping[str, Path]
    host: str = "127.0.0.1"
    told: Callable[[str], None] = lambda line: None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Workspace:
        """Places in the coordinator's folder."""
        return Workspace(self.server)

    def site(self, name: str) -> SiteFolder:
        """Places in a hospital's folder."""
        return SiteFolder(self.sites[name])

    def run(self, program: str, *arguments: str | Path, check: bool = True, cwd: Path | None = None) -> Done:
        """Run one of the three programs.

        Raises:
            ServiceDownError: it failed, and ``check`` was asked for.
        """
        command = self.command(program, [str(argument) for argument in arguments])
        self.told(" ".join([program, *map(str, arguments)]))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd=cwd,
            env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise ServiceDownError(
                f"{program} {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}",
                where=" ".join(map(str, arguments)),
            )
        return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def command(self, program: str, arguments: Sequence[str]) -> list[str]:
        """The command line that runs one of the three programs."""
        return [str(Path(sys.executable).with_name(program)), *arguments]

    def set_up(self, study: Mapping[str, Any], *, sites: Sequence[str] | None = None) -> None:
        """From nothing to admitted sites: ``init``, ``request``, ``admit``, ``init --kit``, ``approve``."""
        outer, inner, health = free_ports(3)
        self.run("cardionets-server", "init", self.server, "--address", f"{self.host}:{outer}")
        self.change_server(listen_host=self.host, inner_port=inner, health_port=health, minimum_free_bytes=0)
        (self.server / "study.yaml").write_text(yaml.safe_dump(dict(study)), encoding="utf-8")
        self.run("cardionets-server", "plan", self.server, "--approve")
        self.run("cardionets-server", "package", self.server)
        for name in sites if sites is not None else self.sites:
            self.admit(name)

    def change_server(self, **changes: Any) -> None:
        """Change keys of ``server.yaml``."""
        path = self.server / "server.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes), encoding="utf-8")

    def admit(self, name: str) -> None:
        """One hospital from its request to its approval."""
        folder = self.sites[name]
        self.run("cardionets-client", "request", "--site", name, "--out", folder)
        request = folder / f"{name}.request"
        carried = self.server / request.name
        shutil.copyfile(request, carried)
        self.run("cardionets-server", "admit", self.server, carried, "--yes")
        self.install_kit(name)
        self.run("cardionets-client", "approve", folder, "--yes")

    def install_kit(self, name: str) -> None:
        """Unpack a hospital's kit, and give it ports of its own, since all share one machine."""
        self.run(
            "cardionets-client", "init", "--kit", self.workspace.kits / f"{name}-kit.zip", self.sites[name]
        )
        path = self.sites[name] / "connection.yaml"
        runtime, health = free_ports(2)
        changed = yaml.safe_load(path.read_text()) | {"runtime_port": runtime, "health_port": health}
        path.write_text(yaml.safe_dump(changed), encoding="utf-8")

    def start(self, *, sites: Sequence[str] | None = None) -> None:
        """Start the coordinator's service and those of the hospitals."""
        self.start_server()
        for name in sites if sites is not None else self.sites:
            self.start_site(name)

    def start_server(self) -> None:
        """Start the coordinator's service."""
        self.run("cardionets-server", "start", self.server, "--background")

    def start_site(self, name: str) -> None:
        """Start a hospital's service."""
        self.run("cardionets-client", "start", self.sites[name], "--background")

    def stop(self) -> None:
        """End everything, whatever state it is in."""
        for folder in (*(self.site(name).service for name in self.sites), self.workspace.state):
            content = running_service(folder)
            process = living(content["supervisor"]) if content else None
            if process is not None:
                process.terminate()
                try:
                    process.wait(timeout=40.0)
                except Exception:  # it is to be gone, however
                    end_tree(process, grace_s=1.0)

    def status(self) -> dict[str, Any]:
        """What ``cardionets-server status`` says."""
        return self.run("cardionets-server", "status", self.server, "--format", "json").json()

    def wait(self, true: Callable[[], Any], *, seconds: float, what: str) -> Any:
        """Wait until something is true.

        Raises:
            ServiceDownError: it was not in time; names ``what`` and the last status.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := true():
                return found
            time.sleep(0.2)
        raise ServiceDownError(f"not within {seconds:.0f} s: {what}", where=json.dumps(self.status())[-3000:])

    def process(self, owner: str, name: str) -> int:
        """Number of a supervised process: of ``server`` or of a site."""
        folder = self.workspace.state if owner == "server" else self.site(owner).service
        content = running_service(folder)
        if content is None or "pid" not in content["processes"][name]:
            raise ServiceDownError(f"{name} of {owner} does not run", where=str(folder))
        return int(content["processes"][name]["pid"])

    def result(self) -> dict[str, Any] | None:
        """The result of the newest run, if it has written one."""
        found = sorted(self.workspace.runs.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
        return json.loads(found[-1].read_text()) if found else None
