"""Values of many recordings as a few bars (the quality report).

Comes in: one number a recording or a person, NaN where it is unknown. Goes out: bars with edges at round
numbers, the unknown ones counted apart; what lies far outside is gathered at the ends, never dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

_STEPS = tuple(digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 2.5, 5))
MAXIMUM_BARS = 16
_FAR = 1.5
"""Times that the range of all values must pass that of the middle ones for the ends to be gathered."""
_WIDTH, _HEIGHT, _BASE, _TALLEST, _WIDEST = 340, 150, 118, 92, 60
_REPEATS = 3
"""So often, on average, a value must come back for the values to be kinds and not measurements."""
_TAIL = 0.005
"""Share of the values that is left to each of the two outermost, open bars where values spread far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar.

    Attributes:
        least: values from here on; None = however small.
        below: and below this; None = however large.
        count: how many.
        label: for people.
    """

    least: float | None
    below: float | None
    count: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Bars and what lies beside them.

    Attributes:
        title: what is counted.
        unit: of the values.
        bars: ascending; their counts add up to ``known``.
        known: values.
        unknown: recordings or people without one.
        median: of the values; None without any.
        least: smallest value.
        most: largest value.
    """

    title: str
    unit: str
    bars: tuple[Bar, ...]
    known: int
    unknown: int
    median: float | None
    least: float | None
    most: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        bars = [{"from": bar.least, "below": bar.below, "count": bar.count} for bar in self.bars]
        return {"unit": self.unit, "known": self.known, "unknown": self.unknown, "median": self.median,
                "least": self.least, "most": self.most, "bars": bars}  # fmt: skip


def histogram(values: np.ndarray, *, title: str, unit: str, digits: int = 2) -> Histogram:
    """Bars of equal width at round edges; few different values get a bar each.

    Args:
        values: float, NaN where unknown.
        title: what is counted.
        unit: of the values.
        digits: significant digits of the numbers that people see.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    distinct = len(np.unique(known))
    few = distinct == 1 or (distinct <= MAXIMUM_BARS // 2 and len(known) >= _REPEATS * distinct)
    bars = _one_each(known) if few else _of_equal_width(known) if distinct else ()
    return Histogram(
        title=title,
        unit=unit,
        bars=bars,
        known=len(known),
        unknown=len(values) - len(known),
        median=_rounded(np.median(known), digits) if len(known) else None,
        least=_rounded(known.min(), digits) if len(known) else None,
        most=_rounded(known.max(), digits) if len(known) else None,
    )


def _one_each(known: np.ndarray) -> tuple[Bar, ...]:
    """A bar for each value that people can tell apart."""
    groups: dict[str, list[float]] = {}
    for value in np.sort(known).tolist():
        groups.setdefault(_label(value), []).append(value)
    return tuple(
        Bar(least=values[0], below=None, count=len(values), label=label) for label, values in groups.items()
    )


def _label(value: float) -> str:
    """Three significant digits, but of large numbers every digit before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _finest(largest: float) -> float:
    """The smallest step at which edges up to ``largest`` keep labels of their own."""
    return 10.0 ** (min(2, math.floor(math.log10(largest))) - 2) if largest > 0 else 0.0


def _of_equal_width(known: np.ndarray) -> tuple[Bar, ...]:
    low, high = (float(value) for value in np.quantile(known, (_TAIL, 1 - _TAIL)))
    if np.ptp(known) <= _FAR * (high - low):
        low, high = float(known.min()), float(known.max())
    span = max(high - low, 1e-9)
    finest = _finest(max(abs(low), abs(high)))
    # A step of 2.5 times the finest would need one digit more.
    steps = [step for step in _STEPS if step >= 0.999 * finest and not 2.4 * finest < step < 2.6 * finest]
    step = next((step for step in steps if span / step <= MAXIMUM_BARS - 2), _STEPS[-1])
    first, last = np.floor(low / step), np.floor(high / step) + 1
    edges = np.arange(first, last + 1) * step
    inside, _ = np.histogram(known[(known >= edges[0]) & (known < edges[-1])], bins=edges)
    bars = [
        Bar(least=float(a), below=float(b), count=int(count), label=_label(a))
        for a, b, count in zip(edges[:-1], edges[1:], inside, strict=True)
    ]
    under, over = int((known < edges[0]).sum()), int((known >= edges[-1]).sum())
    if under:
        bars.insert(0, Bar(least=None, below=float(edges[0]), count=under, label=f"< {_label(edges[0])}"))
    if over:
        bars.append(Bar(least=float(edges[-1]), below=None, count=over, label=f"≥ {_label(edges[-1])}"))
    return tuple(bars)


def _rounded(value: float, digits: int) -> float:
    return float(f"{float(value):.{max(digits, 3)}g}")


def bars_svg(found: Histogram) -> str:
    """The bars as SVG, to stand inside HTML; numbers above them, labels below."""
    count = max(1, len(found.bars))
    step = _WIDTH / count
    tallest = max((bar.count for bar in found.bars), default=0) or 1
    every = -(-count // 8)
    parts = [f'<svg class="bars" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{found.title}">']
    for place, bar in enumerate(found.bars):
        left, middle = place * step, (place + 0.5) * step
        top = _BASE - max(bar.count / tallest * _TALLEST, 0.5)
        wide = min(step - 3, _WIDEST)
        parts.append(
            f'<rect x="{middle - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_BASE - top:.1f}"/>'
        )
        if bar.count and (count <= 10 or bar.count == tallest):
            parts.append(f'<text class="n" x="{middle:.1f}" y="{top - 4:.1f}">{bar.count:,}</text>')
        # A bar between two edges bears its lower edge at its left side; any other its label below it.
        edge = bar.least is not None and bar.below is not None
        if place % every == 0 or not edge:
            label = bar.label.replace("<", "&lt;")
            x = max(left, 8) if edge else middle
            parts.append(f'<text class="x" x="{x:.1f}" y="{_BASE + 14}">{label}</text>')
    parts.append(f'<line x1="0" y1="{_BASE}" x2="{_WIDTH}" y2="{_BASE}"/>')
    parts.append(f'<text class="x" x="{_WIDTH / 2}" y="{_HEIGHT - 3}">{found.unit}</text></svg>')
    return "".join(parts)
