"""A chart's surroundings: its title and caption, what a reader hears of it, its legend, its numbers.

Comes in: what was drawn. Goes out: a ``figure``. A table of many rounds is thinned, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from markupsafe import Markup

from cardionets_core.pages.axes import HEIGHT, WIDTH
from cardionets_core.pages.marks import Look, mark_svg
from cardionets_core.pages.page import short_number

MOST_POINTS = 120
"""Of a line; more cannot be seen."""
MOST_ROWS = 40
MOST_COLUMNS = 60
Cell = str | float | None
Each = TypeVar("Each")


def thinned(values: Sequence[Each], *, most: int = MOST_ROWS) -> list[Each]:
    """At most so many of the values at even distances, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def bar_legend(entries: Iterable[tuple[str, Look]]) -> Markup:
    """Names with a square of the colour of each."""
    rows = [
        Markup(
            '<li><svg viewBox="0 0 12 12" aria-hidden="true" class="chart-key square"><g class="chart">'
            "{}</g></svg>{}</li>"
        ).format(mark_svg("square", 6, 6, look.colour, size=5.6), name)
        for name, look in entries
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(rows))


def legend(entries: Iterable[tuple[str, Look]]) -> Markup:
    """Names with the line and mark of each; lines that look alike have one entry."""
    found = list(entries)
    pale = [name for name, look in found if look.colour == "many"]
    shown = [(name, look) for name, look in found if look.colour != "many"]
    if pale:
        shown.append((f"each of {len(pale)} sites", next(look for _, look in found if look.colour == "many")))
    rows = [
        Markup(
            '<li><svg viewBox="0 0 30 12" aria-hidden="true" class="chart-key"><g class="chart">'
            '<line class="line {0} dash{1}{2}" x1="1" x2="29" y1="6" y2="6"/>{3}</g></svg>{4}</li>'
        ).format(
            look.colour,
            look.dash,
            " thick" if look.colour == "ink" else "",
            mark_svg(look.mark, 15, 6, look.colour) if look.mark else "",
            name,
        )
        for name, look in sorted(shown, key=lambda entry: entry[1].colour != "ink")
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(rows))


def figure(
    key: str,
    drawn: Markup,
    *,
    title: str,
    caption: str,
    told: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    legend: Markup | str = "",
    height: float = HEIGHT,
) -> Markup:
    """The whole figure.

    Args:
        key: names it in the page.
        drawn: the chart.
        title: of it.
        caption: under the title.
        told: what the chart shows, in words, for those who hear the page.
        head: of the table.
        rows: of the table; numbers are written in few digits.
        legend: of ``legend`` or ``bar_legend``.
        height: of the chart.
    """
    svg = Markup(
        '<svg class="chart" viewBox="0 0 {w:g} {h:g}" role="img" aria-labelledby="{k}-t {k}-d">'
        '<title id="{k}-t">{title}</title><desc id="{k}-d">{told}</desc>{drawn}</svg>'
    ).format(w=WIDTH, h=height, k=key, title=title, told=told, drawn=drawn)
    below = Markup('<span class="soft">{}</span>').format(caption) if caption else ""
    return Markup(
        '<figure id="{k}"><figcaption><b>{title}</b>{below}</figcaption>{svg}{legend}{table}</figure>'
    ).format(k=key, title=title, below=below, svg=svg, legend=legend, table=_table(key, title, head, rows))


def _table(key: str, title: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Markup:
    wide = len(head) > MOST_COLUMNS
    heads = Markup("").join(
        Markup('<th scope="col" class="n">{}</th>').format(name) for name in head[:MOST_COLUMNS]
    )
    lines = []
    for row in rows:
        first, rest = row[0], row[1:MOST_COLUMNS]
        cells = Markup("").join(Markup('<td class="n">{}</td>').format(_words(cell)) for cell in rest)
        lines.append(Markup('<tr><th scope="row" class="n">{}</th>{}</tr>').format(_words(first), cells))
    note = Markup('<p class="soft">The first {} columns are shown.</p>').format(MOST_COLUMNS) if wide else ""
    thin = Markup('<p class="soft">{} rows at even distances are shown.</p>').format(MOST_ROWS)
    return Markup(
        '<details id="{k}-n"><summary>Numbers<span class="hidden"> of: {title}</span></summary>'
        '<div class="scroll" id="{k}-s" tabindex="0" role="region" aria-label="Numbers of: {title}">'
        "<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>{notes}</details>"
    ).format(
        k=key,
        title=title,
        heads=heads,
        lines=Markup("").join(lines),
        notes=note + (thin if len(rows) == MOST_ROWS else ""),
    )


def _words(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    return "–" if cell is None or not math.isfinite(cell) else short_number(cell)
