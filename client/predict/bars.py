"""Small bars beside numbers on the page: a value within a range, a probability beside a prevalence.

Comes in: numbers of the JSON-ready content. Goes out: SVG text whose colours are the page's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH, HEIGHT = 160, 16
_MARGIN = 4
_MIDDLE = HEIGHT / 2
_SIDES = 0.5
"""Room on either side of the reference range, as a share of its width."""


def range_svg(found: Mapping[str, Any]) -> str:
    """A phenotype: pale box for the training range, line for the interval, dot for the value.

    What lies outside the picture ends at its edge. Empty without a range.
    """
    low, high = found["reference_low"], found["reference_high"]
    if low is None:
        return ""
    room = _SIDES * (high - low)

    def at(value: float) -> float:
        share = (value - (low - room)) / (high - low + 2 * room)
        return _MARGIN + min(max(share, 0.0), 1.0) * (WIDTH - 2 * _MARGIN)

    parts = [
        _open(),
        f'<rect class="range" x="{at(low):.1f}" y="3" width="{at(high) - at(low):.1f}" height="10"/>',
    ]
    if found["low"] is not None:
        begin, end = at(found["low"]), at(found["high"])
        parts.append(f'<path class="interval" d="M{begin:.1f} {_MIDDLE}H{end:.1f}"/>')
    parts.append(f'<circle class="value" cx="{at(found["value"]):.1f}" cy="{_MIDDLE}" r="3.2"/>')
    return "".join([*parts, "</svg>"])


def probability_svg(found: Mapping[str, Any]) -> str:
    """A disease: bar for the probability, grey tick for the prevalence, dark tick for the threshold."""

    def at(share: float) -> float:
        return _MARGIN + share * (WIDTH - 2 * _MARGIN)

    length = at(found["probability"]) - _MARGIN
    parts = [
        _open(),
        f'<rect class="range" x="{_MARGIN}" y="4" width="{WIDTH - 2 * _MARGIN}" height="8"/>',
        f'<rect class="bar" x="{_MARGIN}" y="4" width="{length:.1f}" height="8"/>',
        _tick("prevalence", at(found["prevalence"])),
    ]
    if found["threshold"] is not None:
        parts.append(_tick("threshold", at(found["threshold"])))
    return "".join([*parts, "</svg>"])


def _open() -> str:
    return f'<svg class="small" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'


def _tick(name: str, x: float) -> str:
    return f'<path class="{name}" d="M{x:.1f} 1V{HEIGHT - 1}"/>'
