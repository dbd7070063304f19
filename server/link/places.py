"""Where the link's files lie in a workspace, and the environment of Flower's processes."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.config.workspace import Workspace

SECRET = "superexec.secret"
CONNECTION = "inner"
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # It begins runs only, and each look costs the SuperLink some 20 ms.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    # The C library would keep what held pieces of tensors; this way it goes back when it is free.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files of the server's TLS.

    Attributes:
        ca: the consortium's authority.
        certificate: the server's.
        key: its private key.
    """

    ca: Path
    certificate: Path
    key: Path


def server_certificate(workspace: Workspace) -> ServerCertificate:
    """The TLS files of a workspace."""
    trust = workspace.trust
    return ServerCertificate(trust / "ca.crt", trust / "server.crt", trust / "server.key")


def database(workspace: Workspace) -> Path:
    """The SuperLink's database."""
    return workspace.link / "link.db"


def waiting_bodies(workspace: Workspace) -> Path:
    """Folder of bodies that wait at the SuperLink; its files have no names."""
    return workspace.link / "waiting"


def flower_home(workspace: Workspace) -> Path:
    """Flower's home folder of this workspace."""
    return workspace.link / "home"


def flower_environment(workspace: Workspace) -> dict[str, str]:
    """The environment of every process of Flower: nothing installs, phones home or reads another's home."""
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(flower_home(workspace)),
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def lay_out(workspace: Workspace) -> None:
    """Make what Flower's processes need: folders, the secret of the SuperExec, the connection's name."""
    home = flower_home(workspace)
    for folder in (workspace.link, home, workspace.state, workspace.logs, workspace.runs):
        folder.mkdir(parents=True, exist_ok=True)
    workspace.link.chmod(0o700)
    secret = workspace.link / SECRET
    if not secret.exists():
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as handle:
            handle.write(secrets.token_hex(32))
    config = workspace.config()
    text = (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{config.inner_port}"\n'
        f'root-certificates = "{server_certificate(workspace).ca}"\n'
    )
    (home / "config.toml").write_text(text, encoding="utf-8")
