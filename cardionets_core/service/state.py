"""What a running service says of itself on disk, and the lock that makes it the only one in its folder.

``service.json`` names the supervisor and its processes by number and time of start, so that a reader knows
whether they still live, and the next supervisor can end what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from cardionets_core.errors import UsageError
from cardionets_core.plain_json import parse_json

SCHEMA_VERSION = 1
STATE = "service.json"
LOCK = "service.lock"
SAME_START_S = 2.0


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none that can be read."""
    try:
        content = parse_json(path.read_bytes(), finite=False)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextlib.contextmanager
def only_one(
    folder: Path, *, name: str = LOCK, what: str = "the service of this folder", patience_s: float = 0.0
) -> Iterator[None]:
    """Hold a lock in a folder.

    Args:
        folder: made if absent.
        name: of the lock's file.
        what: holds it, for the message.
        patience_s: how long to wait for the one who holds it.

    Raises:
        UsageError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience_s
    with (folder / name).open("a+") as handle:
        while not _locked(handle):
            if time.monotonic() >= end:
                raise UsageError(
                    f"{what} is running already",
                    where=str(folder),
                    remedy="look at it with status, or end it with stop",
                )
            time.sleep(0.2)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds this lock."""
    if not path.exists():
        return False
    with path.open("a+") as handle:
        return not _locked(handle)


def _locked(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def identity(pid: int) -> dict[str, float]:
    """Number and time of start of a process: together they name it for good.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    return {"pid": pid, "started_s": round(psutil.Process(pid).create_time(), 3)}


def living(named: dict[str, Any] | None) -> psutil.Process | None:
    """The process that ``identity`` named, if it still lives."""
    if not named or not isinstance(named.get("pid"), int):
        return None
    try:
        process = psutil.Process(named["pid"])
        same = abs(process.create_time() - float(named.get("started_s", 0.0))) < SAME_START_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def running_service(folder: Path) -> dict[str, Any] | None:
    """What the service in a folder says of itself, if its supervisor lives."""
    content = read_json(folder / STATE)
    return content if content and living(content.get("supervisor")) else None


def end_tree(process: psutil.Process, *, grace_s: float) -> None:
    """End a process and all that it started: first politely, then for good."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=grace_s)


def end_leftovers(folder: Path, *, grace_s: float = 10.0) -> list[str]:
    """End what a killed supervisor left running.

    Returns:
        The names of the processes that were ended.
    """
    content = read_json(folder / STATE) or {}
    if living(content.get("supervisor")):
        return []
    ended = []
    for name, entry in content.get("processes", {}).items():
        for member in entry.get("family", [entry]):
            if (process := living(member)) is not None:
                end_tree(process, grace_s=grace_s)
                ended.append(name)
    return sorted(set(ended))
