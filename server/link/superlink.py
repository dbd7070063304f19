"""The SuperLink's process: Flower's own application on two listeners, one for the sites, one on loopback.

``python -m server.link.superlink DIR`` serves the workspace in DIR. The outer listener passes what ``guard``
lets through; the inner one, on loopback, is Flower's whole SuperLink. This is the one file of the server that
uses names of Flower that are not public (written for flwr 1.41; a test says so when that changes).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from cardionets_core.config.workspace import Workspace, open_workspace
from server.link.admission import AdmittedSites, Heartbeats
from server.link.bodies import WholeBodies, settle
from server.link.faults import ComeAgain
from server.link.guard import Guard
from server.link.objects import keep_bytes_in_files
from server.link.places import SECRET, database, server_certificate, waiting_bodies
from server.link.shelf import Shelf

FLWR_MINOR = "1.41"
BUSY_MS = 300_000
"""Flower gives a locked database 5 s and then fails the run; a slow disk under a large model needs more."""


class Listener(uvicorn.Server):
    """One of two servers in a process: the signals belong to both."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to ``serve``."""
        yield


AHEAD_S = 120.0
"""So far a site's clock may be ahead of ours; behind, Flower bears five minutes and this."""


def flower_arguments(workspace: Workspace) -> list[str]:
    """The arguments of Flower's own ``flower-superlink`` for a workspace."""
    config, certificate = workspace.config(), server_certificate(workspace)
    return [
        "--host", "127.0.0.1", "--port", str(config.inner_port),
        "--ssl-ca-certfile", str(certificate.ca), "--ssl-certfile", str(certificate.certificate),
        "--ssl-keyfile", str(certificate.key),
        "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        "--database", str(database(workspace)),
        "--isolation", "process", "--superexec-auth-secret-file", str(workspace.link / SECRET),
    ]  # fmt: skip


def patient_database(busy_ms: int = BUSY_MS) -> None:
    """Let Flower wait longer for a locked database."""
    mixin = importlib.import_module("flwr.supercore.sql_mixin")
    mixin.SQLITE_PRAGMAS = tuple(  # type: ignore[attr-defined]
        (name, str(busy_ms) if name == "busy_timeout" else value) for name, value in mixin.SQLITE_PRAGMAS
    )


def tolerant_clock(ahead_s: float = AHEAD_S) -> None:
    """Let Flower bear sites whose clock is ahead; it bears only five seconds of that."""
    importlib.import_module("flwr.superlink.routers.fleet.node_auth").SYSTEM_TIME_TOLERANCE = ahead_s  # type: ignore[attr-defined]


def inner_application(workspace: Workspace) -> tuple[Any, Any]:
    """Flower's application as its own program would make it, and its settings."""
    program = importlib.import_module("flwr.superlink.cli.flower_superlink")
    main_module = importlib.import_module("flwr.superlink.main")
    sys.argv = ["flower-superlink", *flower_arguments(workspace)]
    settings = program._parse_superlink_lifespan_config()
    return main_module.create_app(settings, program.SuperLinkLifespan), settings


def servers(workspace: Workspace) -> tuple[uvicorn.Server, uvicorn.Server]:
    """The inner and the outer server of a workspace."""
    config, certificate = workspace.config(), server_certificate(workspace)
    flower, settings = inner_application(workspace)
    app = ComeAgain(WholeBodies(flower, shelf=Shelf(waiting_bodies(workspace))))
    tls: dict[str, Any] = {"ssl_certfile": str(certificate.certificate), "ssl_keyfile": str(certificate.key)}
    heartbeats = Heartbeats(workspace)
    guard = Guard(
        app,
        admission=AdmittedSites(workspace),
        versions={name: importlib.metadata.version(name) for name in ("cardionets", "flwr")},
        seen=heartbeats.note,
    )
    quiet: dict[str, Any] = {"workers": 1, "access_log": False, "log_level": "info"}
    inner = Listener(uvicorn.Config(app, host=settings.host, port=settings.port, **tls, **quiet))
    outer = Listener(uvicorn.Config(guard, host=config.listen_host, port=config.outer_port, **tls, **quiet))
    return inner, outer


async def serve(inner: uvicorn.Server, outer: uvicorn.Server) -> None:
    """Serve both until one of them ends; the inner one is up first, since it opens the database."""

    def stop(number: int, frame: FrameType | None) -> None:
        inner.should_exit = outer.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    first = asyncio.create_task(inner.serve())
    while not inner.started and not first.done():
        await asyncio.sleep(0.05)
    settle()
    second = asyncio.create_task(outer.serve())
    await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    inner.should_exit = outer.should_exit = True
    await asyncio.gather(first, second)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the workspace that is named."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    workspace = open_workspace(Path(folder))
    patient_database()
    tolerant_clock()
    keep_bytes_in_files()
    inner, outer = servers(workspace)
    # As Flower's own program runs: TLS is much faster on uvicorn's choice of a loop than on Python's.
    with asyncio.Runner(loop_factory=inner.config.get_loop_factory()) as runner:
        runner.run(serve(inner, outer))


if __name__ == "__main__":
    main()
