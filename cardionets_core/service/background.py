"""Starts a service so that it outlives the terminal, and ends it again."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cardionets_core.errors import CardioNetsError, ServiceDownError, UsageError, error_codes
from cardionets_core.service.logs import open_private, tail
from cardionets_core.service.state import living, running_service

START_S = 120.0
STOP_S = 60.0
LOOK_S = 0.2
OWN_LINES = 12
"""Last lines of a log in which the error of a service that ended is looked for."""
_ERROR = re.compile(
    r"^error \[(?P<code>[a-z-]+)\]: (?P<what>.*?)"
    r"(?:\n  where: (?P<where>.*?))?(?:\n  to do: (?P<remedy>.*?))?\Z",
    re.DOTALL | re.MULTILINE,
)


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
        CardioNetsError: it ended with an error of its own, which is told as it told it.
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
            raise _own_error(tail(log, OWN_LINES, since=before), process.returncode) or ServiceDownError(
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


def _own_error(lines: Sequence[str], returncode: int) -> CardioNetsError | None:
    """The error with which a program of ours ended, as its last words tell it; None where they tell none."""
    found = _ERROR.search("\n".join(lines))
    kind = error_codes().get(found["code"]) if found else None
    if found is None or kind is None or kind.exit_code != returncode:
        return None
    if kind.__init__ is not CardioNetsError.__init__:
        return None  # it is made of more than its words
    return kind(found["what"], where=found["where"] or "", remedy=found["remedy"] or "")
