"""Small charts as SVG in the page: lines with intervals (bars and rows of intervals have their own modules).

Comes in: numbers and words. Goes out: a figure with its title, a description for those who hear the page, a
legend that does not rest on colour alone, and the numbers as a table that can be opened. Colours are the
style sheet's, so that dark pages and paper need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from cardionets_core.pages.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, count_axis, value_axis
from cardionets_core.pages.figures import MOST_POINTS, figure, legend, thinned
from cardionets_core.pages.frame import Number, frame, known
from cardionets_core.pages.marks import Look, looks_of, mark_svg


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes:
        name: of the legend.
        x: whole numbers from 1 on, rising.
        y: a value for each; None or NaN leaves a gap.
        low: of an interval around each value; empty where there is none.
        high: of it.
        whole: whether it stands for all others (the pooled value): drawn thick and last.
        number: its place among all that may stand in such a chart, so that its colour holds from one chart
            to the next; None is its place in this chart.
    """

    name: str
    x: tuple[int, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    whole: bool = False
    number: int | None = None


def line_chart(
    key: str,
    series: Sequence[Series],
    *,
    title: str,
    caption: str = "",
    x_name: str = "round",
    from_zero: bool = False,
    last: int | None = None,
) -> Markup:
    """Lines over whole numbers.

    Args:
        key: names the figure in the page; letters, digits and dashes, once in a page.
        series: at least one; empty ones are left out.
        title: of the figure.
        caption: under it.
        x_name: what the whole numbers are.
        from_zero: whether the axis of values begins at 0.
        last: largest x that is to come, so that a line grows towards it.
    """
    shown = sorted((each for each in series if any(map(known, each.y))), key=lambda each: each.whole)
    looks = looks_of([(each.whole, each.number) for each in shown])
    most = max((each.x[-1] for each in shown), default=1)
    across = count_axis(1, max(most, last or 0), begin=LEFT, end=WIDTH - RIGHT)
    every = [value for each in shown for value in (*each.y, *each.low, *each.high) if known(value)]
    up = value_axis(map(float, filter(known, every)), begin=HEIGHT - BOTTOM, end=TOP, from_zero=from_zero)
    parts = [frame(across, up, x_name)]
    for each, look in zip(shown, looks, strict=True):
        parts.append(_line(each, look, across, up))
    told = "; ".join(_course(each) for each in shown[-6:])
    rounds = thinned(sorted({x for each in shown for x in each.x}))
    found = [dict(zip(each.x, each.y, strict=True)) for each in shown]
    return figure(
        key,
        Markup("").join(parts),
        title=title,
        caption=caption,
        told=f"Lines over {x_name}: {told}." if told else "No values yet.",
        legend=legend([(each.name, look) for each, look in zip(shown, looks, strict=True)]),
        head=(x_name, *(each.name for each in shown)),
        rows=[(f"{x}", *(values.get(x) for values in found)) for x in rounds],
    )


def _course(series: Series) -> str:
    """A line in words: its first and last value."""
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if known(y)]
    (first, begin), (last, end) = points[0], points[-1]
    return f"{series.name} {end:.4g} at {last}" + (f", from {begin:.4g} at {first}" if first != last else "")


def _line(series: Series, look: Look, across: Axis, up: Axis) -> Markup:
    chosen = thinned(list(range(len(series.x))), most=MOST_POINTS)

    def points(values: Sequence[Number]) -> list[tuple[float, float] | None]:
        return [
            (across.at(series.x[each]), up.at(value)) if known(value := values[each]) else None
            for each in chosen
        ]

    drawn = []
    if series.low and series.high:
        edges = [
            pair for pair in zip(points(series.low), points(series.high), strict=True) if None not in pair
        ]
        around = _text([low for low, _ in edges] + [high for _, high in reversed(edges)])
        drawn.append(Markup('<polygon class="band {}" points="{}"/>').format(look.colour, around))
    line = points(series.y)
    shape = f"line {look.colour} dash{look.dash}" + " thick" * series.whole
    for gap, stretch in groupby(line, key=lambda point: point is None):
        if not gap:
            drawn.append(Markup('<polyline class="{}" points="{}"/>').format(shape, _text(stretch)))
    if look.mark:
        # Few points have a mark each; of many only some, or the marks would hide the line.
        there = [point for point in line if point is not None]
        drawn += [mark_svg(look.mark, x, y, look.colour) for x, y in thinned(there, most=12)]
    name = Markup("<title>{}</title>").format(series.name)
    return Markup("<g>{}{}</g>").format(name, Markup("").join(drawn))


def _text(points: Iterable[tuple[float, float] | None]) -> str:
    return " ".join(f"{point[0]:.1f},{point[1]:.1f}" for point in points if point is not None)
