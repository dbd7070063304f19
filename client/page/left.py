"""What left the building, today and in seven days, by the end of the journal.

Comes in: the journal's file. Goes out: numbers by kind and by day, and the last lines. Only the end of a long
journal is read; where that does not reach back for seven days, it is said. The chain is ``chain``'s to check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from cardionets_core.plain_json import parse_json

LEAVING = ("reply-left", "reply-sent-again", "refusal-left")
KINDS = ("train", "evaluate", "statistics", "census", "secure", "refusal")
"""Of what left; a refusal is a code alone."""
DAYS = 7
TAIL_BYTES = 8_000_000
LAST = 12
Body = Mapping[str, Any]


def left_of(journal: Path, *, now: datetime, tail_bytes: int = TAIL_BYTES) -> dict[str, Any]:
    """What left.

    Args:
        journal: its file; may be absent.
        now: the moment, with its zone: days are local.
        tail_bytes: of the journal's end that are read.

    Returns:
        JSON-ready: ``today`` and ``week`` (``count``, ``bytes``, ``patients``: most behind one reply, and
        ``by_kind``), ``days`` (date and bytes by kind, oldest first), ``last`` (the latest first), and
        ``complete``: whether the part that was read reaches back far enough.
    """
    found, whole = _tail(journal, tail_bytes)
    days = [now.date() - timedelta(days=back) for back in reversed(range(DAYS))]
    dated = [(_day(body, now), body) for body in found]
    week = [(day, body) for day, body in dated if day is not None and days[0] <= day <= days[-1]]
    return {
        "today": _sums(body for day, body in week if day == days[-1]),
        "week": _sums(body for _, body in week),
        "days": [
            {"date": day.isoformat(), "bytes": _by_kind(body for other, body in week if other == day)}
            for day in days
        ],
        "last": [_line(body) for body in reversed(found[-LAST:])],
        "complete": whole or any(day is not None and day < days[0] for day, _ in dated[:1]),
    }


def kind_of(body: Body) -> str:
    """What left: a key of ``KINDS``."""
    kind = "refusal" if body.get("event") == "refusal-left" else body.get("kind")
    return kind if isinstance(kind, str) and kind in KINDS else "refusal"


def _sums(bodies: Iterable[Body]) -> dict[str, Any]:
    given = list(bodies)
    by_kind = {kind: {"count": 0, "bytes": 0} for kind in KINDS}
    for body in given:
        entry = by_kind[kind_of(body)]
        entry["count"] += 1
        entry["bytes"] += _whole(body, "bytes") + _whole(body, "text_bytes")
    return {
        "count": len(given),
        "bytes": sum(entry["bytes"] for entry in by_kind.values()),
        "patients": max((_whole(body, "patients") for body in given), default=0),
        "by_kind": {kind: entry for kind, entry in by_kind.items() if entry["count"]},
    }


def _by_kind(bodies: Iterable[Body]) -> dict[str, int]:
    return {kind: entry["bytes"] for kind, entry in _sums(bodies)["by_kind"].items()}


def _line(body: Body) -> dict[str, Any]:
    names = ("time_s", "event", "phase", "round", "attempt", "study", "digest", "patients", "code")
    told = {name: body[name] for name in names if name in body}
    return {**told, "kind": kind_of(body), "bytes": _whole(body, "bytes") + _whole(body, "text_bytes")}


def _whole(body: Body, name: str) -> int:
    value = body.get(name, 0)
    return value if type(value) is int else 0


def _day(body: Body, now: datetime) -> date | None:
    try:
        return datetime.fromtimestamp(float(body["time_s"]), tz=now.tzinfo).date()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _tail(journal: Path, tail_bytes: int) -> tuple[list[Body], bool]:
    """What left by the lines at the end of a journal, and whether these are all."""
    try:
        with journal.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - tail_bytes))
            lines = handle.read(tail_bytes).split(b"\n")
    except OSError:
        return [], True
    whole = size <= tail_bytes
    found: list[Body] = []
    for line in lines if whole else lines[1:]:
        try:
            body = parse_json(line.partition(b" ")[2], finite=False)
        except ValueError:
            continue
        if (
            isinstance(body, dict)
            and body.get("event") in LEAVING
            and type(body.get("time_s")) in (int, float)
        ):
            found.append(body)
    return found, whole
