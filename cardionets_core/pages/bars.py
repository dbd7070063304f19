"""Bars over places, such as rounds, stacked of parts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cardionets_core.pages.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, count_axis, value_axis
from cardionets_core.pages.figures import bar_legend, figure, thinned
from cardionets_core.pages.frame import Number, division, frame
from cardionets_core.pages.marks import COLOURS, Look


def bar_chart(
    key: str,
    names: Sequence[str],
    parts: Sequence[tuple[str, Sequence[Number]]],
    *,
    title: str,
    caption: str = "",
    x_name: str = "round",
    unit: str = "",
    divisions: Sequence[tuple[int, str]] = (),
    named: bool = False,
) -> Markup:
    """Bars over places, each stacked of parts; never anything but from 0.

    Args:
        key: names the figure in the page.
        names: of the places, for the table.
        parts: name and values of each part, one a place.
        title: of the figure.
        caption: under it.
        x_name: what the places are.
        unit: of the values.
        divisions: place at which a new stretch begins, and its name.
        named: the axis bears the names, which are few and short, and not the numbers of the places.
    """
    count = len(names)
    across = count_axis(1, max(1, count), begin=LEFT, end=WIDTH - RIGHT, room=0.55)
    totals = [sum(values[place] or 0.0 for _, values in parts) for place in range(count)]
    up = value_axis(totals or [1.0], begin=HEIGHT - BOTTOM, end=TOP + 12, from_zero=True)
    drawn = [frame(across, up, x_name, places=names if named else ())]
    room = (across.end - across.begin) / max(1.0, across.high - across.low)
    wide = min(26.0, 0.76 * room)
    looks = [Look(colour=f"s{each % COLOURS}", dash=0, mark="square") for each in range(len(parts))]
    floor = [0.0] * count
    for (_, values), look in zip(parts, looks, strict=True):
        for place in range(count):
            value = values[place] or 0.0
            y0, y1 = up.at(floor[place]), up.at(floor[place] + value)
            floor[place] += value
            x = across.at(place + 1) - wide / 2
            drawn.append(
                Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    look.colour, x, y1, wide, y0 - y1
                )
            )
    free = 0.0
    for place, name in divisions:
        # A name that would lie on the one before it is left out; its line stays.
        fits = across.at(place - 0.5) >= free
        free = across.at(place - 0.5) + 7.0 * (len(name) + 1) if fits else free
        drawn.append(division(across, place, name if fits else ""))
    rows = [(name, *(values[place] for _, values in parts)) for place, name in enumerate(names)]
    most = max(totals, default=0.0)
    return figure(
        key,
        Markup("").join(drawn),
        title=title,
        caption=caption,
        told=f"Bars over {count} {x_name}s; the highest is {most:.4g} {unit}.",
        legend=bar_legend([(name, look) for (name, _), look in zip(parts, looks, strict=True)])
        if len(parts) > 1
        else "",
        head=(x_name, *(f"{name} ({unit})" if unit else name for name, _ in parts)),
        rows=thinned(rows),
    )
