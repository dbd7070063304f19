"""The frame of a chart: its axes with their words, and where stretches of it begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

from markupsafe import Markup

from cardionets_core.pages.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis

Number = float | None


def known(value: Number) -> TypeGuard[float]:
    """Whether a value can be drawn."""
    return value is not None and math.isfinite(value)


def frame(across: Axis, up: Axis, x_name: str, *, places: Sequence[str] = ()) -> Markup:
    """Grid, axes and their words; ``places`` are names of the places 1, 2, … in place of numbers."""
    lines = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, y=up.at(tick)
        )
        + Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(
            LEFT - 7, up.at(tick) + 4, up.words(tick)
        )
        for tick in up.ticks
    ]
    if up.low < 0 < up.high:
        lines.append(
            Markup('<line class="zero" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y=up.at(0)
            )
        )
    lines.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, y=up.begin
        )
    )
    lines += [
        Markup('<text class="mid" x="{:.1f}" y="{:.1f}">{}</text>').format(
            across.at(tick), up.begin + 16, places[round(tick) - 1] if places else f"{tick:.0f}"
        )
        for tick in across.ticks
    ]
    middle = (across.begin + across.end) / 2
    lines.append(
        Markup('<text class="mid" x="{:.1f}" y="{:.1f}">{}</text>').format(middle, HEIGHT - 2, x_name)
    )
    return Markup("").join(lines)


def division(across: Axis, place: int, name: str) -> Markup:
    """A line before a place, and the name of what begins there."""
    x = across.at(place - 0.5)
    line = Markup('<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>').format(
        TOP, HEIGHT - BOTTOM, x=x
    )
    return line + Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(x + 3, TOP + 6, name)
