"""Bounded reading of one file: what every reader does first (step 2 of the walk)."""

from __future__ import annotations

from pathlib import Path

from cardionets_core.errors import RecordRefused


def read_bytes(path: Path, *, kind: str, limit_bytes: int) -> bytes:
    """All bytes of a file that may not be larger than a limit.

    Args:
        path: the file.
        kind: ``ecg`` or ``cine``; begins the reason of a refusal.
        limit_bytes: largest size that is read.

    Raises:
        RecordRefused: ``{kind}-file-missing``, ``{kind}-too-large`` or ``{kind}-unreadable``.
    """
    check_size(path, kind=kind, limit_bytes=limit_bytes)
    try:
        with path.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except OSError as error:
        raise RecordRefused(
            f"{kind}-unreadable", f"cannot be read: {error.strerror}", where=str(path)
        ) from error
    if len(content) > limit_bytes:
        raise RecordRefused(f"{kind}-too-large", where=str(path))
    return content


def check_size(path: Path, *, kind: str, limit_bytes: int) -> int:
    """Size of a file in bytes; refuses as ``read_bytes`` does, without reading."""
    try:
        if not path.is_file():
            raise RecordRefused(f"{kind}-file-missing", where=str(path))
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise RecordRefused(f"{kind}-file-missing", where=str(path)) from error
    if size > limit_bytes:
        raise RecordRefused(f"{kind}-too-large", f"{size} bytes are more than {limit_bytes}", where=str(path))
    return size
