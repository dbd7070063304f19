"""Starts a service so that it outlives the terminal, and ends it again."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cardionets_core.errors import ServiceDownError, UsageError
from cardionets_core.service.logs import open_private, tail
from cardionets_core.service.state import living, running_service

START_S = 120.0
STOP_S = 60.0
LOOK_S = 0.2


def start_in_background(
    command: Sequence[str], *, folder: Path, log: Path, cwd: Path, patience_s: float = START_S
) -> dict[str, Any]:
    """Start a service and wait until all of it is up.

    Args:
        command: runs the service in the foreground.
        folder: where it says how it is.
        log: gets what it tells.
        cwd: working folder.
        patience_s: how long it may take.

    Returns:
        What the service says of itself.

    Raises:
        UsageError: one runs already.
        ServiceDownError: it ended, or was not up in time; it is then left as it is, with its log named.
    """
    if running_service(folder):
        raise UsageError(
            "the service of this folder is running already",
            where=str(folder),
            remedy="look at it with status, or end it with stop",
        )
    before = log.stat().st_size if log.exists() else 0
    with open_private(log) as handle:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT,
            cwd=cwd, start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServiceDownError(
                f"the service ended with {process.returncode}:\n" + "\n".join(tail(log, 5, since=before)),
                where=str(log),
                remedy="mend what the log says, then start again",
            )
        content = running_service(folder)
        if content and content.get("status") == "ok":
            return content
        time.sleep(LOOK_S)
    raise ServiceDownError(
        f"the service is not up after {patience_s:.0f} s; it goes on trying",
        where=str(log),
        remedy="look at the log; `status` says which process does not come up",
    )


def stop_service(folder: Path, *, patience_s: float = STOP_S) -> bool:
    """End the service of a folder in order.

    Returns:
        Whether one was running.

    Raises:
        ServiceDownError: it did not end in time.
    """
    content = running_service(folder)
    process = living(content.get("supervisor")) if content else None
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(timeout=patience_s)
        except psutil.TimeoutExpired:
            raise ServiceDownError(
                f"the service did not end within {patience_s:.0f} s",
                where=str(folder),
                remedy=f"look at it; its process is {process.pid}",
            ) from None
    return True
