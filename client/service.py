"""The site's service: the SuperNode under watch, started again with patience, with a health page on loopback.

Comes in: a site's folder. Goes out: a service that runs until it is told to end. It opens connections to the
coordinator only; what it listens on is loopback. The SuperNode is started through ``client.supernode``, the
check that stands outside the code that it judges.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import read_site
from cardionets_core.errors import CertificateInvalidError, ConfigError, VersionMismatchError
from cardionets_core.service.process import ProcessSpec
from cardionets_core.service.supervisor import Job, Supervisor
from client.log import site_log
from client.missing import LinkWatch, missing
from client.warm import is_waiting, write_starter

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
}
LINK_EVERY_S = 3.0
DROPPED = ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME")
"""Not taken from whoever starts the service: the code of the SuperNode must be the installed one."""


def run_service(folder: SiteFolder, *, tell: Callable[[str], None]) -> None:
    """Run the service in the foreground until SIGTERM or SIGINT; says what the site still lacks.

    Raises:
        ConfigError: a document is wrong, or the two do not name the same site.
        CertificateInvalidError: a file of trust is missing.
        VersionMismatchError: another version of Flower or CardioNets is installed here.
        UsageError: the service runs already, or a port is taken.
    """
    check_folder(folder)
    config = folder.config()
    for path in (folder.node, folder.logs, folder.service):
        path.mkdir(parents=True, exist_ok=True)
    log = site_log(folder.root, site=config.site)
    for lacks, line in missing(folder):
        tell(line)
        log.write("site-lacks", lacks=lacks)
    watch = LinkWatch(folder=folder, server=config.server, tell=tell, log=log)
    Supervisor(
        processes(folder),
        folder=folder.service,
        health_port=config.health_port,
        facts={
            "side": "client",
            "site": config.site,
            "server": config.server,
            "versions": {name: importlib.metadata.version(name) for name in ("cardionets", "flwr")},
        },
        jobs=(Job(name="link", every_s=LINK_EVERY_S, work=watch, when_ready=False),),
        ports={"connection.yaml: runtime_port": ("127.0.0.1", config.runtime_port)},
        maximum_log_bytes=config.logs.maximum_bytes,
        keep_logs=config.logs.keep,
        tell=tell,
        log=log,
    ).run()


def check_folder(folder: SiteFolder) -> None:
    """Whether the service can be started at all; raises as ``run_service``."""
    config, site = folder.config(), read_site(folder.site_yaml)
    if site.site != config.site:
        raise ConfigError(
            f"site.yaml speaks for {site.site}, but the coordinator admitted {config.site}",
            where="site.yaml: site",
            remedy=f"set site to {config.site}",
        )
    for name in ("ca.crt", "site.key", "site.crt"):
        if not (folder.trust / name).is_file():
            raise CertificateInvalidError(
                f"there is no {name} in this folder",
                where=str(folder.trust),
                remedy="unpack the coordinator's kit: cardionets-client init --kit KIT.zip DIR",
            )
    wanted = {"cardionets": config.cardionets_version, "flwr": config.flwr_version}
    for name, version in wanted.items():
        found = importlib.metadata.version(name)
        if found != version:
            raise VersionMismatchError(
                f"the coordinator runs {name} {version}, here {found} is installed",
                where="connection.yaml",
                remedy=f"install {name} {version} here, or ask for a kit of the newer version",
            )


def processes(folder: SiteFolder) -> tuple[ProcessSpec, ...]:
    """Flower's processes of a site."""
    config = folder.config()
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
    programs = str(Path(sys.executable).parent)
    environment |= QUIET | {
        "FLWR_HOME": str(folder.node),
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    starter = write_starter(folder.node)
    shared: dict[str, Any] = {
        "environment": environment,
        # Not the site's folder: Python would look for modules in it before the installed ones.
        "folder": folder.node,
        "first_pause_s": config.restart.first_pause_s,
        "longest_pause_s": config.restart.longest_pause_s,
        "healthy_after_s": config.restart.healthy_after_s,
    }
    return (
        ProcessSpec(
            name="warm",
            command=(sys.executable, "-P", "-m", "client.warm", str(folder.node)),
            log=folder.logs / "warm.log",
            ready=lambda: is_waiting(folder.node),
            **shared,
        ),
        ProcessSpec(
            name="supernode",
            command=(
                sys.executable, "-P", "-m", "client.supernode",
                "--approvals", str(folder.approvals), "--starter", str(starter),
                "--superlink", config.server,
                "--root-certificates", str(folder.trust / "ca.crt"),
                "--auth-supernode-private-key", str(folder.trust / "site.key"),
                "--host", "127.0.0.1", "--port", str(config.runtime_port),
                "--node-config", f'site-config="{folder.site_yaml}"',
            ),
            log=folder.logs / "supernode.log",
            ready=_Answers(f"http://127.0.0.1:{config.runtime_port}/health"),
            **shared,
        ),
    )  # fmt: skip


class _Answers:
    """Whether the SuperNode's runtime answers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._url, timeout=2.0) as answer:
                return int(answer.status) == 200
        except OSError:
            return False
