"""A journal's lines for people (row 9 of the walk).

Comes in: a journal's file. Goes out: its bodies as JSON, or one plain line for each. Signatures and keys are
for programs and are left out of the plain lines. Checks no chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cardionets_core.errors import DataError
from cardionets_core.plain_json import parse_json

_TOLD = {"number", "time_s", "event", "previous", "study", "phase", "round", "attempt"}
_FOR_PROGRAMS = {"signature", "key", "server_signature", "server_key"}
_DIGEST = 64


def journal_bodies(path: Path) -> Iterator[str]:
    """Each line's JSON, as it was written and without its hash."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            yield line.decode("utf-8").partition(" ")[2]
        except UnicodeDecodeError as error:
            raise _unreadable(f"{path}:{number}") from error


def journal_line(body: str) -> str:
    """One line for people: local time, event, where in the study (phases counted from 1), and all else.

    Args:
        body: JSON of the line.

    Raises:
        DataError: it is no line of ours.
    """
    try:
        facts: dict[str, Any] = parse_json(body, finite=False)
        when = datetime.fromtimestamp(float(facts["time_s"])).astimezone().isoformat(timespec="seconds")
        told = [f"{when}  {facts['event']}"]
        if "phase" in facts:
            told.append(f"phase {int(facts['phase']) + 1}, round {facts.get('round', 0)}")
            told[-1] += f", attempt {facts['attempt']}" if "attempt" in facts else ""
    except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
        raise _unreadable("journal") from error
    if "study" in facts:
        told.append(f"study {str(facts['study'])[:16]}")
    hidden = _TOLD | _FOR_PROGRAMS
    told += [f"{name} {_shown(name, value)}" for name, value in sorted(facts.items()) if name not in hidden]
    line = " · ".join(told)
    return line if line.isprintable() else ascii(line)[1:-1]


def _unreadable(where: str) -> DataError:
    return DataError(
        "a line of the journal cannot be read",
        where=where,
        remedy="find the first broken line with: journal verify",
    )


def _shown(name: str, value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if name != "digest" and len(str(value)) == _DIGEST:
        return str(value)[:16]
    return str(value) or "none"
