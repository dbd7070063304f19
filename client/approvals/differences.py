"""What differs between two bundles, line by line.

Comes in: files. Goes out: counted changes. Text of a stranger is made safe for a terminal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from client.approvals.bundle import printable

LONGEST_LINES = 20_000
"""Longer files are only counted: comparing them takes a time that grows with the square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file that differs.

    Attributes:
        path: in the bundle.
        kind: ``added``, ``removed`` or ``changed``.
        plus: lines that came.
        minus: lines that went.
    """

    path: str
    kind: str
    plus: int
    minus: int


def file_changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[FileChange]:
    """The files that differ, by path.

    Args:
        before: path to content.
        after: path to content.
    """
    found = []
    for path in sorted(set(before) | set(after)):
        if before.get(path) == after.get(path):
            continue
        kind = "added" if path not in before else "removed" if path not in after else "changed"
        plus = minus = 0
        for line in _body(before.get(path, b""), after.get(path, b"")):
            plus += line.startswith("+")
            minus += line.startswith("-")
        found.append(FileChange(path=printable(path), kind=kind, plus=plus, minus=minus))
    return found


def unified(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    """Unified diffs of all files that differ, as lines for a terminal."""
    for path in sorted(set(before) | set(after)):
        if before.get(path) != after.get(path):
            yield f"--- {printable(path) if path in before else '/dev/null'}"
            yield f"+++ {printable(path) if path in after else '/dev/null'}"
            yield from _body(before.get(path, b""), after.get(path, b""))


def lines_of(content: bytes) -> list[str]:
    """The lines of a file; bytes that are no text are shown, not dropped."""
    return [printable(line) for line in content.decode("utf-8", "backslashreplace").split("\n")][
        : None if not content.endswith(b"\n") and content else -1
    ]


def _body(before: bytes, after: bytes) -> Iterator[str]:
    old, new = lines_of(before), lines_of(after)
    if max(len(old), len(new)) > LONGEST_LINES:
        yield from (f"-{line}" for line in old)
        yield from (f"+{line}" for line in new)
        return
    # The first two lines are the names, which the caller writes.
    yield from list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
