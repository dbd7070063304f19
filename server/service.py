"""The coordinator's service: SuperLink and SuperExec under watch, with the keepers of keys and study.

Comes in: a workspace. Goes out: a service that runs until it is told to end. Processes run as Flower wants
them: the SuperLink alone, the ServerApp in a process of its own under the SuperExec, so either may die alone.
"""

from __future__ import annotations

import importlib.metadata
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CertificateInvalidError
from cardionets_core.logs.log import EventLog
from cardionets_core.service.process import ProcessSpec
from cardionets_core.service.state import STATE, living, read_json
from cardionets_core.service.supervisor import Job, Supervisor
from server.link.control import Control
from server.link.keeper import KeySync, StudyKeeper
from server.link.places import (
    SECRET,
    database,
    flower_environment,
    lay_out,
    server_certificate,
)

KEYS_EVERY_S = 3.0
STUDY_EVERY_S = 3.0
CERTIFICATE_EVERY_S = 10.0
LOG = "server.log"


def run_service(workspace: Workspace, *, tell: Callable[[str], None]) -> None:
    """Run the service in the foreground until SIGTERM or SIGINT.

    Raises:
        CertificateInvalidError: the workspace has no authority or server certificate yet.
        UsageError: the service runs already, or a port is taken.
    """
    certificate = server_certificate(workspace)
    missing = [path.name for path in (certificate.ca, certificate.certificate, certificate.key)
               if not path.is_file()]  # fmt: skip
    if missing:
        raise CertificateInvalidError(
            f"the workspace has no {', '.join(missing)} yet",
            where=str(workspace.trust),
            remedy="make them: cardionets-server provision DIR",
        )
    lay_out(workspace)
    config, control = workspace.config(), Control(workspace)
    log = service_log(workspace)
    keys = KeySync(workspace, control, tell, log)
    if not database(workspace).exists():
        keys.forget()
    jobs = (
        Job(name="keys", every_s=KEYS_EVERY_S, work=keys),
        Job(name="study", every_s=STUDY_EVERY_S, work=StudyKeeper(workspace, control, tell, log)),
        Job(name="certificate", every_s=CERTIFICATE_EVERY_S, work=_CertificateWatch(workspace, tell, log)),
    )
    Supervisor(
        processes(workspace),
        folder=workspace.state,
        health_port=config.health_port,
        facts={
            "side": "server",
            "address": config.address,
            "versions": {name: importlib.metadata.version(name) for name in ("cardionets", "flwr")},
        },
        jobs=jobs,
        ports={
            "server.yaml: address": (config.listen_host, config.outer_port),
            "server.yaml: inner_port": ("127.0.0.1", config.inner_port),
        },
        maximum_log_bytes=config.logs.maximum_bytes,
        keep_logs=config.logs.keep,
        tell=tell,
        log=log,
    ).run()


def service_log(workspace: Workspace) -> EventLog:
    """The service's own log: structured lines, see docs/logs.md."""
    logs = workspace.config().logs
    return EventLog(
        path=workspace.logs / LOG, side="server", maximum_bytes=logs.maximum_bytes, keep=logs.keep
    )


def processes(workspace: Workspace) -> tuple[ProcessSpec, ...]:
    """Flower's processes of a workspace."""
    config, certificate = workspace.config(), server_certificate(workspace)
    shared: dict[str, Any] = {
        "environment": flower_environment(workspace),
        "folder": workspace.root,
        "first_pause_s": config.restart.first_pause_s,
        "longest_pause_s": config.restart.longest_pause_s,
        "healthy_after_s": config.restart.healthy_after_s,
    }
    inner = f"127.0.0.1:{config.inner_port}"
    return (
        ProcessSpec(
            name="superlink",
            command=(sys.executable, "-P", "-m", "server.link.superlink", str(workspace.root)),
            log=workspace.logs / "superlink.log",
            ready=_Answers(f"https://{inner}/health", certificate.ca),
            **shared,
        ),
        ProcessSpec(
            name="superexec",
            command=(
                str(Path(sys.executable).with_name("flower-superexec")),
                "--runtime-api-address", inner,
                "--root-certificates", str(certificate.ca),
                "--superexec-auth-secret-file", str(workspace.link / SECRET),
            ),
            log=workspace.logs / "serverapp.log",
            **shared,
        ),
    )  # fmt: skip


class _Answers:
    """Whether a health page answers; looked at seldom once it did."""

    def __init__(self, url: str, ca: Path) -> None:
        self._url, self._ca = url, ca

    def __call__(self) -> bool:
        import ssl

        context = ssl.create_default_context(cafile=str(self._ca))
        try:
            with urllib.request.urlopen(self._url, timeout=2.0, context=context) as answer:
                return int(answer.status) == 200
        except OSError:
            return False


class _CertificateWatch:
    """Starts the SuperLink anew when its certificate was renewed; its run outlives that."""

    def __init__(self, workspace: Workspace, tell: Callable[[str], None], log: EventLog) -> None:
        self._workspace, self._tell, self._log = workspace, tell, log
        self._stamp = self._look()

    def __call__(self) -> None:
        now = self._look()
        if now == self._stamp:
            return
        self._stamp = now
        content = read_json(self._workspace.state / STATE) or {}
        process = living(content.get("processes", {}).get("superlink"))
        if process is not None:
            self._tell("the server's certificate was renewed: the SuperLink starts anew")
            self._log.write("certificate-renewed")
            process.terminate()

    def _look(self) -> int:
        return server_certificate(self._workspace).certificate.stat().st_mtime_ns
