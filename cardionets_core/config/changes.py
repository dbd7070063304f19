"""What differs between two studies, key by key, the weightiest first.

Comes in: two studies as JSON values. Goes out: changes, and words for them. Entries of lists are counted from
1, as everywhere. Phases are compared with the phase that they were; one that came or went is one change.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "nothing"
PHASES = "phases"
SECURE = "secure_aggregation"
_PHASE = re.compile(r"phases\.[0-9]+")
_WHOLE = re.compile(rf"{_PHASE.pattern}|{SECURE}")
_FIRST = ("name", "privacy.mechanism", "privacy.epsilon", "privacy.noise_multiplier")
"""Of all keys, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key that differs.

    Attributes:
        key: as ``phases.1.rounds``; of a phase that came or went ``phases.1``, with its task for a value.
        was: the value before; None where there was none.
        now: the value after; None where there is none.
    """

    key: str
    was: Any
    now: Any


def study_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every key whose value differs; an absent one, null and an empty list or mapping are all no value.

    Args:
        before: a study, as JSON.
        after: another one.

    Returns:
        By weight: the name, privacy, secure aggregation, phases that went or came, then the rest.
    """
    old, new = dict(before), dict(after)
    earlier, later = old.pop(PHASES, None) or [], new.pop(PHASES, None) or []
    found: list[Change] = []
    if bool(old.get(SECURE)) != bool(new.get(SECURE)):
        found.append(Change(key=SECURE, was=old.pop(SECURE, None) or None, now=new.pop(SECURE, None) or None))
    found += _changes(old, new, "")
    for was, now in _pairs(_tasks(earlier), _tasks(later)):
        if now is None and was is not None:
            found.append(Change(key=f"{PHASES}.{was + 1}", was=_tasks(earlier)[was], now=None))
        elif was is None and now is not None:
            found.append(Change(key=f"{PHASES}.{now + 1}", was=None, now=_tasks(later)[now]))
        elif was is not None and now is not None:
            found += _changes(earlier[was], later[now], f"{PHASES}.{now + 1}")
    return sorted(found, key=_weight)


def change_words(key: str, was: Any, now: Any) -> str:
    """A change on one line.

    Args:
        key: of it.
        was: the value before; None where there was none.
        now: the value after; None where there is none.
    """
    if _WHOLE.fullmatch(key) and (was is None or now is None):
        number = key.partition(".")[2]
        what = f"phase {number} ({now if was is None else was})" if number else key
        return f"{what} is {'new' if was is None else 'gone'}"
    return f"{key if key.isprintable() else ascii(key)}: {_value(was)} -> {_value(now)}"


def first_of(words: Sequence[str], *, most: int) -> str:
    """The first changes on one line, and how many more there are."""
    shown = "; ".join(words[:most])
    return f"{shown}; and {len(words) - most} more" if len(words) > most else shown


def _pairs(earlier: Sequence[str], later: Sequence[str]) -> Iterator[tuple[int | None, int | None]]:
    """Places of the phases that are the same one, and of those that stand on one side alone."""
    same = difflib.SequenceMatcher(a=earlier, b=later, autojunk=False)
    for _, begin, end, begins, ends in same.get_opcodes():
        if earlier[begin:end] == later[begins:ends]:
            yield from zip(range(begin, end), range(begins, ends), strict=True)
        else:
            yield from ((place, None) for place in range(begin, end))
            yield from ((None, place) for place in range(begins, ends))


def _tasks(phases: Sequence[Any]) -> list[str]:
    return [str(phase.get("task", "")) if isinstance(phase, Mapping) else "" for phase in phases]


def _changes(before: Any, after: Any, key: str) -> list[Change]:
    old, new = dict(_leaves(before, key)), dict(_leaves(after, key))
    return [
        Change(key=name, was=old.get(name), now=new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists under dotted keys; what is empty is no leaf."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _leaves(inner, f"{key}.{number}" if key else str(number))
    elif value is not None:
        yield key, value


def _weight(change: Change) -> tuple[Any, ...]:
    key = change.key
    kinds = (
        key in _FIRST,
        key.startswith("privacy."),
        key.partition(".")[0] == SECURE,
        _PHASE.fullmatch(key) is not None and change.now is None,
        _PHASE.fullmatch(key) is not None,
        True,
    )
    # Numbers in a key by their size: phases.2 before phases.10.
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in key.split(".")]
    return kinds.index(True), _FIRST.index(key) if key in _FIRST else 0, parts


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
