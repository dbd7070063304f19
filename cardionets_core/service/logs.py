"""Log files of supervised processes: each process appends to its own, and they are cut when they grow.

A process writes straight into its file, so its words survive whatever happens to the supervisor. To rotate,
the file is copied and then emptied: with appending writes the process goes on at the new end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

TAIL_BYTES = 16_384
MODE = 0o600


def open_private(path: Path) -> BinaryIO:
    """Open a log for appending, such that only this account reads it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags, MODE))


def rotate(path: Path, *, maximum_bytes: int, keep: int) -> bool:
    """Move a log that has grown too large to ``NAME.1``, older ones up to ``NAME.keep``.

    Args:
        path: the log; may be absent.
        maximum_bytes: size above which it is moved.
        keep: number of older files.

    Returns:
        Whether it was moved.
    """
    if not path.exists() or path.stat().st_size <= maximum_bytes:
        return False
    for number in range(keep, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    newest = path.with_name(f"{path.name}.1")
    newest.touch(mode=MODE)
    shutil.copyfile(path, newest)
    with path.open("r+b") as handle:
        handle.truncate(0)
    return True


def tail(path: Path, lines: int, *, since: int = 0) -> list[str]:
    """The last lines of a log; none where there is no log.

    Args:
        path: of the log.
        lines: how many at most.
        since: bytes at its beginning that do not count; a log that has been cut since then counts whole.
    """
    try:
        with path.open("rb") as handle:
            end = handle.seek(0, 2)
            handle.seek(max(0, end - TAIL_BYTES, since if since <= end else 0))
            text = handle.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]
