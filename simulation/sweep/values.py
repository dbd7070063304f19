"""What is typed after ``--set``: a dotted key and its values.

``KEY=a,b,c`` lists values. ``KEY=1..5`` is the whole numbers from 1 to 5, ``KEY=0..1:5`` five evenly spaced
numbers, ``KEY=log:1e-4..1e-1:4`` four with equal ratios.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cardionets_core.errors import UsageError

Value = bool | int | float | str | None
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(?P<log>log:)?(?P<first>{_NUMBER})\.\.(?P<last>{_NUMBER})(?::(?P<count>\d+))?")
MOST_VALUES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key and the values that it takes.

    Attributes:
        key: dotted, as typed.
        values: in the order in which they were typed, each once.
    """

    key: str
    values: tuple[Value, ...]


def parse_axes(typed: Sequence[str]) -> tuple[Axis, ...]:
    """Read all ``--set`` options.

    Raises:
        UsageError: everything that cannot be read, at once.
    """
    axes: list[Axis] = []
    faults: list[str] = []
    for text in typed:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or not key or not values.strip():
            faults.append(f"{text!r} is not KEY=VALUES")
        elif key in {axis.key for axis in axes}:
            faults.append(f"{key} is set twice: put all its values behind one --set, with commas between")
        else:
            try:
                axes.append(Axis(key=key, values=parse_values(values)))
            except ValueError as error:
                faults.append(f"{key}: {error}")
    if not typed:
        faults.append("nothing is set")
    if faults:
        raise UsageError(
            "; ".join(faults),
            where="--set",
            remedy="as in --set study.seed=1..5 --set study.phases.align.options.temperature=0.05,0.1",
        )
    return tuple(axes)


def parse_values(text: str) -> tuple[Value, ...]:
    """The values of a list in which single entries may be ranges.

    Raises:
        ValueError: a range that cannot be, or a value twice.
    """
    found: list[Value] = []
    for part in text.split(","):
        found += _range(part.strip())
    if len(found) != len({(type(value), value) for value in found}):
        raise ValueError("a value stands twice")
    return tuple(found)


def parse_scalar(text: str) -> Value:
    """A word as a document would have it: true, false, null, a number, or text."""
    words: dict[str, Value] = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(_NUMBER, text) else text


def _range(text: str) -> list[Value]:
    match = _RANGE.fullmatch(text)
    if match is None:
        if not text:
            raise ValueError("there is an empty value")
        return [parse_scalar(text)]
    first, last = float(match["first"]), float(match["last"])
    count = int(match["count"]) if match["count"] else None
    if count is not None and not 2 <= count <= MOST_VALUES:
        raise ValueError(f"{text} has {count} values: give 2 to {MOST_VALUES}")
    if match["log"]:
        if count is None or first <= 0 or last <= 0:
            raise ValueError(f"{text} needs positive ends and a number of values, as log:1e-4..1e-1:4")
        return [_short(value) for value in np.geomspace(first, last, count)]
    if count is not None:
        return [_short(value) for value in np.linspace(first, last, count)]
    if last < first and not match["count"]:
        raise ValueError(f"{text} is no range: it ends before it begins")
    if not first.is_integer() or not last.is_integer():
        raise ValueError(f"{text} is no range of whole numbers: say how many values, as in 0..1:5")
    if last - first >= MOST_VALUES:
        raise ValueError(f"{text} has more than {MOST_VALUES} values")
    return list(range(int(first), int(last) + 1))


def _short(value: float) -> float:
    """Without the last digits, which are of the computation alone: 0.30000000000000004 is 0.3."""
    return float(f"{value:.12g}")
