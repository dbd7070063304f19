"""Axes of small charts: readable ticks, and where a value lies on the paper.

Comes in: values. Goes out: ticks at round numbers with their words, and positions in the units of an SVG.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH, HEIGHT = 360.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 34.0
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One direction of a chart.

    Attributes:
        low: value at ``begin``.
        high: value at ``end``.
        begin: position of ``low``.
        end: position of ``high``.
        ticks: values that are named.
    """

    low: float
    high: float
    begin: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The position of a value; what lies outside is drawn at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def words(self, tick: float) -> str:
        """What stands at a tick: as many digits as its neighbours need."""
        most = max(abs(self.low), abs(self.high))
        size, unit = next((each for each in _UNITS if most >= 10 * each[0]), (1.0, ""))
        step = (self.ticks[1] - self.ticks[0]) / size if len(self.ticks) > 1 else 1.0
        if 0 < step < 1e-4:
            return f"{tick:.0e}" if tick else "0"
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        if round(step * 10**digits, 6) % 1:
            digits += 1
        text = f"{tick / size:,.{digits}f}"
        return "0" if float(text.replace(",", "")) == 0 else text.replace("-", "−") + unit


def value_axis(
    values: Iterable[float], *, begin: float, end: float, from_zero: bool = False, ticks: int = 5
) -> Axis:
    """An axis that holds all values, from one round number to another.

    Args:
        values: finite ones count; with none the axis goes from 0 to 1.
        begin: position of its low end.
        end: of its high end.
        from_zero: whether 0 lies on it.
        ticks: about so many.
    """
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(high), abs(low), 1e-12):
        room = 0.5 * abs(high) or 0.5
        low, high = (low, high + room) if from_zero and low == 0 else (low - room, high + room)
    raw = (high - low) / max(1, ticks - 1)
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(each * scale for each in _STEPS if each * scale >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = tuple(number * step for number in range(first, last + 1))
    return Axis(low=marks[0], high=marks[-1], begin=begin, end=end, ticks=marks)


def count_axis(
    first: int, last: int, *, begin: float, end: float, ticks: int = 7, room: float | None = None
) -> Axis:
    """An axis of whole numbers, such as rounds; ticks at round ones, and at the first.

    Args:
        first: number.
        last: number.
        begin: position of the low end.
        end: of the high end.
        ticks: about so many.
        room: before the first and after the last; a little by default.
    """
    last = max(first, last)
    span = last - first
    step = max(1, math.ceil(span / ticks))
    if step > 2:
        scale = 10 ** math.floor(math.log10(step))
        step = next(each * scale for each in (1, 2, 5, 10) if each * scale >= step)
    marks = sorted({first, *(number for number in range(first, last + 1) if number % step == 0)})
    if len(marks) > 1 and marks[1] - marks[0] < 0.6 * step:
        del marks[1]
    if room is None:
        room = 0.5 if span == 0 else 0.02 * span
    return Axis(low=first - room, high=last + room, begin=begin, end=end, ticks=tuple(map(float, marks)))
