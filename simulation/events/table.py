"""Who was left out of the rounds and why, beside what the schedule did to them, as rows for a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Content = Mapping[str, Any]


def event_rows(result: Content) -> list[list[str]]:
    """Rows of site, what happened, phase, rounds, and what came of it.

    Args:
        result: content of ``result.json``; its ``events`` say what the schedule did.
    """
    happened = {
        (fact["site"], fact["phase"], fact["round"], fact["kind"]) for fact in result.get("events") or ()
    }
    outcomes = {
        (row["site"], entry["phase"], entry["round"]): _outcome(row)
        for entry in result["rounds"]
        for row in entry["sites"]
    }
    scheduled = {place[:3] for place in happened}
    kept: dict[tuple[str, str, int, str], list[int]] = {}
    for site, phase, number, kind in sorted(
        happened, key=lambda place: (place[0], place[1], place[3], place[2])
    ):
        came = outcomes.get((site, phase, number), "not asked to train")
        kept.setdefault((site, kind, phase, came), []).append(number)
    for (site, phase, number), came in sorted(outcomes.items()):
        # Left out for a reason of its own: nobody scheduled that.
        if came.startswith("left out") and (site, phase, number) not in scheduled:
            kept.setdefault((site, "-", phase, came), []).append(number)
    tasks = [phase["task"] for phase in result["study"]["phases"]]
    return [
        [site, kind, tasks[phase], _ranges(rounds), came]
        for (site, kind, phase, came), rounds in kept.items()
    ]


def _outcome(row: Content) -> str:
    if row["status"] == "left-out":
        reason = f" ({row['reason']})" if row.get("reason") else ""
        return f"left out: {row['code']}{reason}"
    return "its reply was taken"


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as ``1-3, 7``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
