"""Whether the journal is whole, looked at a piece at a time, so that no page waits for a long one.

Comes in: the journal's file, again and again. Goes out: how far its chain was checked, its head, and the
first line that does not fit. What was checked is not read again as long as the file only grows; a file that
became shorter, or another one under its name, is checked anew from its first line. It does the same as
``journal verify``, and mends nothing.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.audit.journal import GENESIS
from cardionets_core.plain_json import parse_json

LOOK_BYTES = 32_000_000
"""Checked at one look: some 0.2 s."""
LONGEST_LINE = 1_000_000
TORN_AFTER_S = 5.0
"""Half a line that is as old as that is nobody's any more."""


def broken_steps(path: Path) -> list[str]:
    """What to do about a journal whose chain is broken, step by step.

    Args:
        path: of the journal.
    """
    journal, aside = shlex.quote(str(path)), shlex.quote(f"{path}.broken")
    return [
        "find out who or what changed the file, and tell the coordinator: the heads that it keeps show which"
        " lines it knew (journal verify --against FILE)",
        f"for a new journal, stop the service, then set this one aside, and keep it: mv -n {journal} {aside};"
        " the first answer after the next start begins a new one at line 1",
        f"leave ledger.db and all else in {shlex.quote(str(path.parent))} where it is: privacy that was spent"
        " stays counted there",
        "the coordinator then warns that the journal became shorter; the study goes on",
    ]


@dataclass(slots=True)
class Chain:
    """How far a journal was checked.

    Attributes:
        path: of the journal.
        look_bytes: checked at most at one look.
    """

    path: Path
    look_bytes: int = LOOK_BYTES
    _file: tuple[int, int] = (0, 0)
    _place: int = 0
    _lines: int = 0
    _head: str = GENESIS
    _fault: int = 0
    _since: float | None = None
    _torn: bool = False

    def look(self) -> dict[str, Any]:
        """Go on, and say how far it is.

        Returns:
            JSON-ready: ``state`` (``absent``, ``whole``, ``checking``, ``torn``, ``broken``,
            ``unreadable``), ``lines``
            and ``head`` as far as checked, ``bytes`` of the file, ``checked_bytes``, ``fault_line`` (0 for
            none), ``checked_s`` (when the last of it was checked, a Unix time; None before).
        """
        try:
            size = self._go_on()
        except FileNotFoundError:
            self._begin((0, 0))
            return self._told("absent", 0)
        except OSError:
            return self._told("unreadable", 0)
        if self._fault:
            return self._told("broken", size)
        if self._place < size:
            return self._told("checking", size)
        self._since = time.time()
        return self._told("torn" if self._torn else "whole", size)

    def _begin(self, file: tuple[int, int]) -> None:
        self._file, self._place, self._lines, self._head, self._fault = file, 0, 0, GENESIS, 0
        self._since = None

    def _go_on(self) -> int:
        with self.path.open("rb") as handle:
            found = os.fstat(handle.fileno())
            if (found.st_dev, found.st_ino) != self._file or found.st_size < self._place:
                self._begin((found.st_dev, found.st_ino))
            if self._lines and not self._fault and not self._holds_head(handle):
                self._begin(self._file)
            handle.seek(self._place)
            begun, self._torn = self._place, False
            while not self._fault and self._place - begun < self.look_bytes:
                line = handle.readline(LONGEST_LINE)
                if not line:
                    break
                if not line.endswith(b"\n"):
                    # It is being written at this moment, or a crash tore it, or it is none of ours.
                    if len(line) == LONGEST_LINE:
                        self._fault = self._lines + 1
                        break
                    self._torn = time.time() - found.st_mtime > TORN_AFTER_S
                    return self._place
                self._take(line)
            return max(found.st_size, self._place)

    def _holds_head(self, handle: Any) -> bool:
        """Whether the last line that was checked is still there, as it was."""
        handle.seek(max(0, self._place - LONGEST_LINE))
        last = handle.read(self._place - handle.tell()).rstrip(b"\n").rpartition(b"\n")[2]
        return bool(hashlib.sha256(last.partition(b" ")[2]).hexdigest() == self._head)

    def _take(self, line: bytes) -> None:
        digest, _, text = line[:-1].partition(b" ")
        try:
            body = parse_json(text, finite=False) if _hash(text) == digest else {}
        except ValueError:
            body = {}
        number = self._lines + 1
        if not isinstance(body, dict) or body.get("previous") != self._head or body.get("number") != number:
            self._fault = number
            return
        self._lines, self._head, self._place = number, digest.decode(), self._place + len(line)

    def _told(self, state: str, size: int) -> dict[str, Any]:
        return {
            "state": state,
            "lines": self._lines,
            "head": "" if self._head == GENESIS else self._head,
            "bytes": size,
            "checked_bytes": self._place,
            "fault_line": self._fault,
            "checked_s": self._since,
        }


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
