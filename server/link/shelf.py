"""Where bodies wait: a few in memory, all others in files, so that memory does not grow with those who wait.

Comes in: parts of a body. Goes out: the body in one piece, or in slices for a caller who takes his time. A
file has no name and is gone with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

IN_MEMORY = 8
SLICE_BYTES = 262_144


class Shelf:
    """Gives places to bodies that wait.

    Args:
        folder: of the files; made when it is first needed.
        in_memory: bodies that may wait in memory.
    """

    def __init__(self, folder: Path, *, in_memory: int = IN_MEMORY) -> None:
        self._folder, self._free = folder, in_memory

    @property
    def free(self) -> int:
        """Bodies that may still wait in memory."""
        return self._free

    def body(self) -> Body:
        """A new body; in memory while there is room."""
        if self._free > 0:
            self._free -= 1
            return Body(self, None)
        self._folder.mkdir(parents=True, exist_ok=True)
        return Body(self, tempfile.TemporaryFile(dir=self._folder))

    def give_back(self) -> None:
        """A place in memory is free again."""
        self._free += 1


class Body:
    """A body that waits; made by a shelf, and given back to it by ``close`` or at the end of ``with``."""

    def __init__(self, shelf: Shelf, file: IO[bytes] | None) -> None:
        self._shelf: Shelf | None = shelf
        self._file = file
        self._parts: list[bytes] = []

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()

    def add(self, part: bytes) -> None:
        """Add a part.

        Raises:
            OSError: the disk is full.
        """
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part)

    def take(self) -> bytes:
        """The whole body in one piece; its place is free then."""
        if self._file is None:
            whole = b"".join(self._parts)
        else:
            self._file.seek(0)
            whole = self._file.read()
        self.close()
        return whole

    def slices(self) -> Iterator[bytes]:
        """The body bit by bit; a slice at a time is in memory where it lies in a file."""
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(SLICE_BYTES):
                yield piece
            return
        for part in self._parts:
            for start in range(0, len(part), SLICE_BYTES):
                yield part[start : start + SLICE_BYTES]

    def close(self) -> None:
        """Give the place back; a second time does nothing."""
        shelf, self._shelf = self._shelf, None
        self._parts = []
        if self._file is not None:
            self._file.close()
        elif shelf is not None:
            shelf.give_back()
