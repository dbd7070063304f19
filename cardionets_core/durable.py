"""Files that must last: written whole or not at all, and on the disk before anybody counts on them.

Comes in: a path and bytes. Goes out: the file under its name, fsynced with its folder, or the one that was
there before. A full, read-only or failing disk becomes one error that names the folder. It decides nothing
about what is written, and reads nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cardionets_core.errors import StorageFailedError

DISK_FAULTS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.ESTALE,
        errno.ENODEV,
    }
)

LITTLE_BYTES = 50_000_000
"""With less, people are told before anything fails."""


@contextlib.contextmanager
def on_disk(folder: Path, *, keeps: str) -> Iterator[None]:
    """Turn a fault of the disk inside the block into ``StorageFailedError``; other errors pass.

    Args:
        folder: named in the error.
        keeps: what stays whole all the same, for the reader of the error.

    Raises:
        StorageFailedError: the disk is full, read-only, over quota or failing.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_fault(error):
            raise
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise StorageFailedError(
            f"the disk did not take what must last: {reason}; {keeps}",
            where=str(folder),
            remedy="free space, or mount the disk for writing; then go on: nothing is done twice",
        ) from error


def is_disk_fault(error: BaseException) -> bool:
    """Whether an error comes from a disk that cannot be written, not from a wrong path or a bug."""
    if isinstance(error, OSError):
        return error.errno in DISK_FAULTS
    # safetensors writes in Rust and passes on the system's text alone: "... (os error 28)".
    return type(error).__name__ == "SafetensorError" and any(
        f"os error {number})" in str(error) for number in DISK_FAULTS
    )


def little_room(folder: Path) -> str:
    """What to say of a disk that is about to be full; empty where there is room, or no such folder."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"only {free} bytes are free on the disk of {folder}" if free < LITTLE_BYTES else ""


def write_whole(path: Path, content: bytes, *, wait: bool = True) -> None:
    """Put a file in the place of the one before it, in one step; when this returns, the disk has it.

    Args:
        path: of the file.
        content: of it.
        wait: for the disk; without it a power cut, but no crash of the program, may bring the old file back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as handle:
            handle.write(content)
            handle.flush()
            if wait:
                os.fsync(handle.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if wait:
        sync_folder(path.parent)


def write_json(path: Path, content: dict[str, Any], *, wait: bool = True) -> None:
    """Write a JSON file in one step: a reader never sees half of it. ``wait`` as in ``write_whole``."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, text.encode(), wait=wait)


def sync_file(path: Path) -> None:
    """Wait until the disk has a file that another library wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    sync_file(folder)


def place_folder(part: Path, target: Path) -> None:
    """Give a finished folder its name, in the place of one that may be there; names are on the disk after it.

    A crash leaves the old folder, the new one, or none under that name; never a mixture.
    """
    for folder in sorted({path.parent for path in part.rglob("*")} | {part}, reverse=True):
        sync_folder(folder)
    old = target.with_name(f".{target.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if target.exists():
        target.rename(old)
    part.rename(target)
    sync_folder(target.parent)
    if old.exists():
        shutil.rmtree(old)
