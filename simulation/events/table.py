"""Who was left out of the rounds and why, beside what the schedule did to them, as rows for a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from simulation.events.schedule import Attack, Event, Fault, LabelFlip

Content = Mapping[str, Any]
_EVENT: TypeAdapter[Fault | Attack | LabelFlip] = TypeAdapter(Event)


def event_rows(result: Content, events: Sequence[Fault | Attack | LabelFlip] = ()) -> list[list[str]]:
    """Rows of site, what happened, phase, rounds, and what came of it.

    Args:
        result: content of ``result.json``; its own ``events`` are the schedule where none is given.
        events: the schedule.
    """
    schedule = events or [_EVENT.validate_python(event) for event in result.get("events") or ()]
    tasks = [phase["task"] for phase in result["study"]["phases"]]
    kept: dict[tuple[str, int, str, str], list[int]] = {}
    for entry in result["rounds"]:
        phase, number = entry["phase"], entry["round"]
        for row in entry["sites"]:
            kinds = [
                event.kind
                for event in schedule
                if not isinstance(event, LabelFlip)
                and event.site == row["site"]
                and event.applies(task=tasks[phase], phase=phase, round_number=number)
            ]
            # Left out with no event: for a reason of its own, which nobody scheduled.
            if kinds or row["status"] == "left-out":
                place = (row["site"], phase, " and ".join(kinds) or "-", _outcome(row))
                kept.setdefault(place, []).append(number)
    rows = [
        [site, kind, tasks[phase], _ranges(rounds), came]
        for (site, phase, kind, came), rounds in sorted(kept.items())
    ]
    flipped = [event.site for event in schedule if isinstance(event, LabelFlip)]
    return rows + [[site, "label_flip", "all", "all", "its diagnoses are flipped"] for site in flipped]


def _outcome(row: Content) -> str:
    if row["status"] == "left-out":
        reason = f" ({row['reason']})" if row.get("reason") else ""
        return f"left out: {row['code']}{reason}"
    return "measured" if row["status"] == "measured" else "its reply was taken"


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as ``1-3, 7``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
