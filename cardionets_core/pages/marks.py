"""How lines of a chart are told apart: by colour, by dashes and by marks, never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

COLOURS: Final = 8
# The diamond is that of the line that stands for all others.
MARKS: Final = ("circle", "square", "triangle", "down", "cross", "bar", "plus", "house")
_POLYGONS: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    "down": ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "house": ((0, -1.2), (1.1, -0.2), (0.7, 1.1), (-0.7, 1.1), (-1.1, -0.2)),
    "bar": ((-1.2, -0.45), (1.2, -0.45), (1.2, 0.45), (-1.2, 0.45)),
    "plus": ((-.4, -1.2), (.4, -1.2), (.4, -.4), (1.2, -.4), (1.2, .4), (.4, .4),
             (.4, 1.2), (-.4, 1.2), (-.4, .4), (-1.2, .4), (-1.2, -.4), (-.4, -.4)),
    "cross": ((-1.1, -.55), (-.55, -1.1), (0, -.55), (.55, -1.1), (1.1, -.55), (.55, 0),
              (1.1, .55), (.55, 1.1), (0, .55), (-.55, 1.1), (-1.1, .55), (-.55, 0)),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one line is drawn.

    Attributes:
        colour: class of the style sheet.
        dash: 0 to 3; 0 is none.
        mark: of ``MARKS``; empty for none.
    """

    colour: str
    dash: int
    mark: str


def looks_of(lines: Sequence[tuple[bool, int | None]]) -> list[Look]:
    """Looks of the lines of one chart, in their order.

    Beyond eight sites no colour can be told from another: all of them are then thin and pale, and the one
    that stands for all of them is what is seen.

    Args:
        lines: of each, whether it stands for all others, and its number among all, or None.
    """
    places = [place for place, (whole, _) in enumerate(lines) if not whole]
    numbers = {place: lines[place][1] for place in places}
    if None in numbers.values():
        numbers = {place: number for number, place in enumerate(places)}
    many = max((number or 0 for number in numbers.values()), default=0) >= COLOURS
    found = []
    for place, (whole, _) in enumerate(lines):
        number = numbers.get(place) or 0
        if whole:
            found.append(Look(colour="ink", dash=0, mark="diamond"))
        elif many:
            found.append(Look(colour="many", dash=0, mark=""))
        else:
            found.append(Look(colour=f"s{number}", dash=number % 4, mark=MARKS[number]))
    return found


def mark_svg(kind: str, x: float, y: float, colour: str, *, size: float = 3.4) -> Markup:
    """One mark at a place."""
    if kind == "circle":
        return Markup('<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(
            colour, x, y, size
        )
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in _POLYGONS[kind])
    return Markup('<polygon class="mark {}" points="{}"/>').format(colour, points)
