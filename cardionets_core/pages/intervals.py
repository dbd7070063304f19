"""Values with their intervals below each other, such as a metric of the pool and of every site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cardionets_core.pages.axes import RIGHT, TOP, WIDTH, value_axis
from cardionets_core.pages.figures import figure
from cardionets_core.pages.frame import Number, known
from cardionets_core.pages.marks import mark_svg

LONGEST = 17
"""Letters of a name beside a row; the table has it whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One row of a chart of values with intervals.

    Attributes:
        name: at its left.
        value: of it.
        low: of the interval, or None.
        high: of it.
        whole: whether it stands for all others.
        note: said in the table, such as for how many people.
    """

    name: str
    value: float
    low: Number = None
    high: Number = None
    whole: bool = False
    note: str = ""


def interval_chart(
    key: str,
    rows: Sequence[Interval],
    *,
    title: str,
    caption: str = "",
    reference: Number = None,
    reference_name: str = "",
) -> Markup:
    """Values with their intervals below each other, all on one axis.

    Args:
        key: names the figure in the page.
        rows: from top to bottom.
        title: of the figure.
        caption: under it.
        reference: a value that means something, such as chance, drawn as a dotted line.
        reference_name: what it means.
    """
    row_height, left = 20.0, 112.0
    bottom = TOP + row_height * max(1, len(rows))
    values = [value for row in rows for value in (row.value, row.low, row.high, reference) if known(value)]
    across = value_axis(map(float, filter(known, values)), begin=left, end=WIDTH - RIGHT - 4)
    drawn = [
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
            across.at(tick), TOP, bottom
        )
        + Markup('<text class="mid" x="{:.1f}" y="{:.1f}">{}</text>').format(
            across.at(tick), bottom + 15, across.words(tick)
        )
        for tick in across.ticks
    ]
    if reference is not None:
        drawn.append(
            Markup('<line class="zero" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                across.at(reference), TOP, bottom
            )
        )
    for place, row in enumerate(rows):
        y = TOP + row_height * (place + 0.5)
        colour = "ink" if row.whole else "s0"
        shown = row.name if len(row.name) <= LONGEST else row.name[: LONGEST - 1] + "…"
        kind = "name" if row.whole else "site"
        drawn.append(Markup('<text class="{}" x="0" y="{:.1f}">{}</text>').format(kind, y + 4, shown))
        if row.low is not None and row.high is not None:
            drawn.append(
                Markup('<line class="rule {}" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                    colour, across.at(row.low), across.at(row.high), y=y
                )
            )
        drawn.append(
            mark_svg("diamond" if row.whole else "circle", across.at(row.value), y, colour, size=4.6)
        )
    dotted = f". Dotted: {reference_name}" if reference is not None and reference_name else ""
    return figure(
        key,
        Markup("").join(drawn),
        title=title,
        caption=caption + dotted,
        told="; ".join(f"{row.name} {row.value:.4g}" for row in rows[:8]) + ".",
        head=("", "value", "low", "high", "of"),
        rows=[(row.name, row.value, row.low, row.high, row.note) for row in rows],
        height=bottom + 22,
    )
