"""Our logs read again: parsed, filtered, followed, and told to people.

Comes in: a log's file with the older ones beside it. Goes out: its lines as dicts, oldest first, or as plain
text in local time with phases counted from 1. Lines that are none of ours (of another hand or version, or
torn) are passed over, and counted for whoever asks. It changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cardionets_core.errors import UsageError
from cardionets_core.logs.events import LEVELS
from cardionets_core.logs.ours import is_ours
from cardionets_core.logs.sentence import sentence, told_in
from cardionets_core.plain_json import parse_json

LINE_BYTES = 65_536
"""Longer lines are none of ours."""
LAST_BYTES = 2_000_000
FOLLOW_S = 0.5
_SPANS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FIRST = ("time", "level", "event", "side")
_SHORT = 16
"""Letters of a digest that people are shown, but for what left."""

Line = dict[str, Any]
Strange = Callable[[], None]
"""Called for each line that cannot be read as one of ours."""


def _unheard() -> None:
    pass


def files_of(path: Path) -> list[Path]:
    """The log and the older ones beside it, oldest first; those that are there."""
    older = [
        (int(found.name.rpartition(".")[2]), found)
        for found in path.parent.glob(f"{path.name}.*")
        if found.name.rpartition(".")[2].isdigit()
    ]
    return [found for _, found in sorted(older, reverse=True)] + ([path] if path.is_file() else [])


def read_lines(
    path: Path, *, level: str = "info", since: datetime | None = None, strange: Strange = _unheard
) -> Iterator[Line]:
    """The lines of a log and of the older ones beside it, oldest first.

    Args:
        path: of the log; may be absent.
        level: this and worse.
        since: earlier lines are left out.
        strange: called for each line that is none of ours.
    """
    for file in files_of(path):
        try:
            with file.open("rb") as handle:
                for line in _parsed(handle, strange):
                    if is_wanted(line, level=level, since=since):
                        yield line
        except FileNotFoundError:
            continue  # it was moved meanwhile, and its lines come with the next name or are gone


def last_lines(path: Path, *, most_bytes: int = LAST_BYTES) -> list[Line]:
    """The lines at the end of a log, oldest first, whatever its size.

    Args:
        path: of the log; may be absent.
        most_bytes: that are read, over the log and the older ones beside it.
    """
    found: list[Line] = []
    for file in reversed(files_of(path)):
        try:
            with file.open("rb") as handle:
                begin = max(0, handle.seek(0, os.SEEK_END) - most_bytes)
                most_bytes -= handle.tell() - begin
                handle.seek(begin)
                found[:0] = _parsed(handle.read().split(b"\n"))
        except FileNotFoundError:
            continue
        if most_bytes <= 0:
            break
    return found


def follow(
    path: Path,
    *,
    wait: Callable[[float], None],
    level: str = "info",
    since: datetime | None = None,
    strange: Strange = _unheard,
) -> Iterator[Line]:
    """The lines that are there, then those that come, none between the two lost; ends when ``wait`` raises.

    Args:
        path: of the log; may come to be later.
        wait: pauses for so many seconds.
        level: this and worse.
        since: earlier lines are left out.
        strange: called for each line that is none of ours.
    """

    def wanted(raw: Any) -> Iterator[Line]:
        return (line for line in _parsed(raw, strange) if is_wanted(line, level=level, since=since))

    handle, rest = _open(path), b""
    try:
        for file in files_of(path):
            if handle is None or _is_other(file, handle):
                with file.open("rb") as older:
                    yield from wanted(older)
        while True:
            moved = handle is None or _is_other(path, handle)
            if handle is not None:
                *whole, rest = (rest + handle.read()).split(b"\n")
                yield from wanted(whole)
            if moved:
                following = _open(path)
                if following is not None:
                    if handle is not None:
                        handle.close()
                    handle, rest = following, b""
                    continue
            wait(FOLLOW_S)
    finally:
        if handle is not None:
            handle.close()


def is_wanted(line: Line, *, level: str = "info", since: datetime | None = None) -> bool:
    """Whether a line is of this level or worse, and late enough."""
    at_least = LEVELS.index(level)  # type: ignore[arg-type]
    if line["level"] not in LEVELS[at_least:]:
        return False
    return since is None or moment_of(line) >= since


def moment_of(line: Line) -> datetime:
    """When the line was written."""
    return datetime.fromisoformat(line["time"])


def parse_since(text: str, *, now: datetime) -> datetime:
    """A moment as people type it: ``30m``, ``2h``, ``7d``, or a date and time; local where it names no zone.

    Raises:
        UsageError: it is neither.
    """
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _SPANS_S and number.isdigit():
            return now - timedelta(seconds=int(number) * _SPANS_S[unit])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text} is no moment", where="--since", remedy="give 30m, 2h, 7d, or 2026-01-31T08:00"
        ) from None


def text_line(line: Line) -> str:
    """A line for people: local time, level, event, and the fields; docs/logs.md has what each event means."""
    when = moment_of(line).astimezone().isoformat(sep=" ", timespec="seconds")
    level = "" if line["level"] == "info" else f"{line['level'].upper()} "
    told = [f"{when}  {level}{line['event']}"]
    if "phase" in line:
        told.append(f"phase {line['phase'] + 1}, round {line.get('round', 0)}")
    hidden = {*_FIRST, "site", "phase", "round", "attempt", *told_in(line)}
    shown = {**line, "what": sentence(line)} if told_in(line) else line
    told += [f"{name} {_shown(name, value)}" for name, value in shown.items() if name not in hidden]
    text = " · ".join(told).replace("\n", " ")
    return text if text.isprintable() else ascii(text)[1:-1]


def _shown(name: str, value: Any) -> str:
    if name == "phase" or not isinstance(value, str):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else ""
    return value[:_SHORT] if name == "study" else value


def _parsed(lines: Any, strange: Strange = _unheard) -> Iterator[Line]:
    for raw in lines:
        line = _line_of(raw)
        if line is not None:
            yield line
        elif raw.strip():
            strange()


def _line_of(raw: bytes) -> Line | None:
    """The line, or None where it is none of ours."""
    if len(raw) > LINE_BYTES or not raw.startswith(b"{"):
        return None
    try:
        line = parse_json(raw, finite=False)
        has_zone = datetime.fromisoformat(line["time"]).tzinfo is not None
    except (ValueError, KeyError, TypeError):
        return None
    return line if has_zone and is_ours(line) else None


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_other(path: Path, handle: Any) -> bool:
    """Whether the file under this name is another one than the open one."""
    try:
        named, opened = path.stat(), os.fstat(handle.fileno())
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino)
