"""Files of the store that only grow, and whose parts can be blanked (step 4 of the walk).

Comes in: bytes. Goes out: where they lie. A file knows nothing of records, digests or the log. When it is
opened again, what the log does not cover is cut off and what is missing is filled up, so that every place
stays where it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from cardionets_core.durable import sync_folder
from cardionets_core.errors import DataError

_BYTES_AT_ONCE = 1 << 22


class FlatFile:
    """One file, open for appending at ``end`` and for overwriting with zeros.

    Args:
        path: made where it is absent, readable by its owner alone.
        end: bytes that are covered. A shorter file is filled up with zeros, of a longer one the rest is cut.
        held: bytes that somebody may have mapped: they are blanked behind ``end``, but not cut.
        step: bytes; what is appended begins at a multiple of them.

    Attributes:
        found: how many of the covered bytes were there.
    """

    def __init__(self, path: Path, *, end: int, held: int = 0, step: int = 1) -> None:
        self.path = path
        self._step = step
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._handle).st_size
        self.found = min(end, size)
        self.end = max(end, min(held, size))
        os.ftruncate(self._handle, self.end)
        self.blank(end, self.end - end)
        self._dirty = True

    def __enter__(self) -> FlatFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        os.close(self._handle)

    def append(self, content: bytes | memoryview) -> int:
        """Write behind the end; gives where it begins, in bytes. What failed half way is not counted."""
        start, written, view = -(-self.end // self._step) * self._step, 0, memoryview(content)
        self._dirty = True
        while written < len(view):
            written += os.pwrite(self._handle, view[written:], start + written)
        self.end = start + written
        return start

    def read(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on; fewer only where the file ends."""
        pieces = []
        while length > 0 and (piece := os.pread(self._handle, length, start)):
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return b"".join(pieces)

    def blank(self, start: int, length: int) -> None:
        """Overwrite with zeros, in place: whoever holds a map of the file sees them too."""
        stop = min(start + length, self.end)
        self._dirty = True
        while start < stop:
            start += os.pwrite(self._handle, bytes(min(_BYTES_AT_ONCE, stop - start)), start)

    def sync(self) -> None:
        """Reach the disk."""
        if self._dirty:
            os.fsync(self._handle)
            self._dirty = False


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Replace a file at once: a reader sees the old bytes or the new ones, and a crash leaves either."""
    draft = path.with_name(f"{path.name}.draft")
    make_way(draft)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.writelines(pieces)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def map_file(path: Path, dtype: str, *, shape: tuple[int, ...]) -> np.ndarray:
    """Read-only memory map of the first items of a file, which may be longer.

    Raises:
        ValueError, OSError: the file is absent or shorter than the shape asks for.
    """
    regular_file(path)
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def regular_file(path: Path) -> Path:
    """The path, if it leads to a file; opening a pipe would wait for ever.

    Raises:
        FileNotFoundError: there is nothing, or a link to nowhere.
        OSError: there is something else.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def make_way(path: Path) -> None:
    """Take away a pipe or a link to nowhere where a file is about to be opened for writing.

    Raises:
        DataError: a folder lies there; what it holds is not ours to delete.
    """
    if path.is_dir():
        raise DataError(
            "a folder lies where a file of the cache belongs", where=f"folders.cache: {path}",
            remedy="move it out of the cache and run `prepare` again",
        )  # fmt: skip
    if not path.is_file():
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error with a remedy.

    Raises:
        DataError: the disk is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise DataError(
            "the disk is full" if full else f"the cache's folder cannot be written to: {error.strerror}",
            where=f"folders.cache: {folder}",
            remedy="free some space and run `prepare` again: what has been read is kept" if full
            else "name a folder that this account may write to",
        ) from error  # fmt: skip
