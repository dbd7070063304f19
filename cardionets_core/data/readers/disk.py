"""Bounded reading of one file: what every reader does first (step 2 of the walk)."""

from __future__ import annotations

import stat
from pathlib import Path

from cardionets_core.errors import RecordRefused


def read_bytes(path: Path, *, kind: str, limit_bytes: int) -> bytes:
    """All bytes of a file that may not be larger than a limit.

    A file that grows while it is read gives the bytes that it had at first.

    Args:
        path: the file.
        kind: ``ecg`` or ``cine``; begins the reason of a refusal.
        limit_bytes: largest size that is read.

    Raises:
        RecordRefused: ``{kind}-file-missing``, ``{kind}-too-large`` or ``{kind}-unreadable``.
    """
    size = check_size(path, kind=kind, limit_bytes=limit_bytes)
    try:
        with path.open("rb") as stream:
            return stream.read(size)  # never the limit: Python sets aside as much as is asked for
    except OSError as error:
        raise RecordRefused(
            f"{kind}-unreadable", f"cannot be read: {error.strerror}", where=str(path)
        ) from error


def check_size(path: Path, *, kind: str, limit_bytes: int) -> int:
    """Size of a file in bytes; refuses as ``read_bytes`` does, without reading."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise RecordRefused(f"{kind}-file-missing", where=str(path)) from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise RecordRefused(f"{kind}-file-missing", where=str(path))
    if status.st_size > limit_bytes:
        raise RecordRefused(
            f"{kind}-too-large", f"{status.st_size} bytes are more than {limit_bytes}", where=str(path)
        )
    return status.st_size
