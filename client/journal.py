"""The site's journal, for people: what left the building, line by line.

Comes in: the journal's file. Goes out: its bodies as JSON lines, or one plain line for each. Computes and
imports little, since ``status`` and ``journal`` look into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
"""Its name in the site's folder of states."""
_TOLD = {"number", "time_s", "event", "previous", "study", "phase", "round", "attempt"}


def journal_bodies(path: Path) -> Iterator[str]:
    """Each line's JSON, as it was written and without its hash."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield line.partition(" ")[2]


def journal_line(body: str) -> str:
    """One line for people: local time, event, where in the study (phases counted from 1), and all else.

    Args:
        body: JSON of the line.
    """
    facts: dict[str, Any] = json.loads(body)
    when = datetime.fromtimestamp(float(facts["time_s"])).astimezone().isoformat(timespec="seconds")
    told = [f"{when}  {facts['event']}"]
    if "phase" in facts:
        told.append(f"phase {int(facts['phase']) + 1}, round {facts.get('round', 0)}")
        told[-1] += f", attempt {facts['attempt']}" if "attempt" in facts else ""
    if "study" in facts:
        told.append(f"study {str(facts['study'])[:16]}")
    told += [f"{name} {_shown(value)}" for name, value in sorted(facts.items()) if name not in _TOLD]
    return " · ".join(told)


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) or "none"
