"""Writes our log: one JSON object a line, mode 0600, cut by size, safe with several processes.

Comes in: an event with its fields. Goes out: a line at the end of the file, or nothing where the disk takes
none; then the caller goes on, since a log must stop no work. Each line is one appending write under a lock of
the file, so lines of several processes never mix; whoever would make the file too large moves it to
``NAME.1`` under that lock, and the others see that their file has moved and open the new one. It decides
nothing about what may be told: ``events`` does.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.logs.events import EVENTS, Side, Value, told

MAXIMUM_BYTES = 10_000_000
KEEP = 5
MODE = 0o600
_MOST_TRIES = 100
"""Of opening a file that others move away at that moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """The log of one side.

    Attributes:
        path: of the file; made on the first line.
        side: whose it is.
        site: named in every line; empty for none.
        maximum_bytes: size above which the file is moved away.
        keep: number of older files.
    """

    path: Path
    side: Side
    site: str = ""
    maximum_bytes: int = MAXIMUM_BYTES
    keep: int = KEEP

    def write(self, event: str, **fields: Value) -> bool:
        """Write a line.

        Args:
            event: a key of ``EVENTS``.
            fields: of it; values that are not of their kind are withheld, empty ones left out.

        Returns:
            Whether the file took it.

        Raises:
            KeyError: there is no such event, or it has no such field.
        """
        content = {
            "time": _now(),
            "level": EVENTS[event].level,
            "event": event,
            "side": self.side,
            **told(event, {"site": self.site, **fields}),
        }
        line = f"{json.dumps(content, ensure_ascii=False, allow_nan=False)}\n".encode()
        try:
            self._append(line)
        except OSError:
            return False
        return True

    def _append(self, line: bytes) -> None:
        descriptor = self._opened(len(line))
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) != len(line):
                # Half a line would be taken for a torn one; the lock keeps others from standing behind it.
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)  # with it goes the lock

    def _opened(self, more: int) -> int:
        """The file that has the name now, locked, with room for so many bytes more."""
        for _ in range(_MOST_TRIES):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                found = os.fstat(descriptor)
                if self._is_named(found):
                    if found.st_size == 0 or found.st_size + more <= self.maximum_bytes:
                        if found.st_mode & 0o077:
                            with contextlib.suppress(OSError):
                                os.fchmod(descriptor, MODE)
                        return descriptor
                    self._move()
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise OSError(f"{self.path.name} is moved away again and again")

    def _is_named(self, found: os.stat_result) -> bool:
        """Whether the file that is open still has the log's name."""
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)

    def _move(self) -> None:
        for number in range(self.keep, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number}"))


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"
