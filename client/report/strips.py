"""Where the lines of an ECG strip lie on paper, whatever draws them.

Comes in: a recording in mV, raw or filtered. Goes out: twelve lines in two columns over the first ten
seconds, in the proportions of ECG paper: a box is 0.2 s wide and 0.5 mV high, unless the amplitude asks for
another height, which is then said. A missing sample is a gap in the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cardionets_core.data.records import LEADS

SECONDS = 10.0
BOX_S = 0.2
BOX_MV = 0.5
BOX_PX = 9.0
ROWS = 6
ROW_BOXES = 5
COLUMN_BOXES = SECONDS / BOX_S
GUTTER_PX = 14.0
WIDTH_PX = 2 * COLUMN_BOXES * BOX_PX + GUTTER_PX
HEIGHT_PX = ROWS * ROW_BOXES * BOX_PX
_POINTS_PER_PX = 1.0
_STEPS = tuple(digit * 10.0**power for power in range(-5, 7) for digit in (1, 2, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One lead.

    Attributes:
        lead: its name.
        left_px: of its column.
        middle_px: of its row.
        pieces: float64 [n, 2] each: x and y in pixels; between two pieces samples are missing.
    """

    lead: str
    left_px: float
    middle_px: float
    pieces: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A whole strip of ``WIDTH_PX`` by ``HEIGHT_PX``.

    Attributes:
        lines: the twelve, limb leads in the left column.
        box_mv: height of a box.
        seconds: how much of the recording is shown.
    """

    lines: tuple[Line, ...]
    box_mv: float
    seconds: float

    @property
    def scale(self) -> str:
        """The scale in words."""
        return f"one box: {BOX_S:g} s across, {self.box_mv:g} mV up"


def lay_out(signal_mv: np.ndarray, *, fs_hz: float, leads: tuple[str, ...] = LEADS) -> Strip:
    """Place the lines of a recording.

    Args:
        signal_mv: [L, T] in mV; NaN or infinite where missing.
        fs_hz: samples per second.
        leads: names of the rows; names other than the twelve are left out.
    """
    samples = max(1, min(signal_mv.shape[1], int(SECONDS * fs_hz)))
    rows: dict[str, np.ndarray] = {}
    for name, row in zip(leads, signal_mv[:, :samples].astype(np.float64), strict=True):
        rows.setdefault(name, np.where(np.isfinite(row), row, np.nan))
    box_mv = _box_mv([rows[lead] for lead in LEADS if lead in rows])
    lines = []
    for place, lead in enumerate(LEADS):
        left = (place // ROWS) * (COLUMN_BOXES * BOX_PX + GUTTER_PX)
        middle = (place % ROWS + 0.5) * ROW_BOXES * BOX_PX
        pieces = _pieces(rows[lead], fs_hz, left, middle, box_mv) if lead in rows else ()
        lines.append(Line(lead=lead, left_px=left, middle_px=middle, pieces=pieces))
    return Strip(lines=tuple(lines), box_mv=box_mv, seconds=samples / fs_hz)


def _box_mv(rows: list[np.ndarray]) -> float:
    """0.5 mV a box, or the step of 1, 2, 5 at which the recording fills its rows."""
    spans = [
        np.nanpercentile(row, 99.8) - np.nanpercentile(row, 0.2) for row in rows if np.isfinite(row).any()
    ]
    largest = float(np.median(sorted(spans)[-4:])) if spans else 0.0
    if 0.4 * BOX_MV <= largest <= 1.6 * ROW_BOXES * BOX_MV or largest <= 0:
        return BOX_MV
    return next((step for step in _STEPS if largest <= ROW_BOXES * step), _STEPS[-1])


def _pieces(
    row: np.ndarray, fs_hz: float, left: float, middle: float, box_mv: float
) -> tuple[np.ndarray, ...]:
    offset = np.nanmedian(row) if np.isfinite(row).any() else 0.0
    reach = 0.95 * ROW_BOXES * BOX_PX
    height = np.clip((row - offset) / box_mv * BOX_PX, -reach, reach)
    points = np.stack([left + np.arange(len(row)) / fs_hz / BOX_S * BOX_PX, middle - height], axis=1)
    there = np.flatnonzero(np.isfinite(height))
    if not len(there):
        return ()
    runs = np.split(there, np.flatnonzero(np.diff(there) > 1) + 1)
    return tuple(_thinned(points[run]) for run in runs)


def _thinned(points: np.ndarray) -> np.ndarray:
    """Lowest and highest point of each step across, in their order: no peak is lost."""
    steps = max(1, int((points[-1, 0] - points[0, 0]) * _POINTS_PER_PX))
    if len(points) <= 2 * steps:
        return points
    edges = np.linspace(0, len(points), steps + 1).astype(int)
    keep: set[int] = {0, len(points) - 1}
    for begin, end in pairwise(edges.tolist()):
        piece = points[begin:end, 1]
        keep |= {begin + int(piece.argmin()), begin + int(piece.argmax())}
    return points[sorted(keep)]
