"""End-diastole and end-systole of a cine whose file names neither (step 2 of the walk; FORMATS section 2).

Comes in: a cine. Goes out: the two frames, and that they are a guess. Bright blood is counted around the
centre of
motion: pixels within 60 mm of it and above one threshold for the whole cine (Otsu, IEEE Trans. SMC 9:62,
1979), over the middle half of the slices. The count is smoothed around the cycle by its first three
harmonics. ES is its minimum. ED is the last frame of its plateau: from the end of filling to contraction the
volume hardly changes, and ED is the moment before contraction, not the highest bump. Frame 0 is not taken for
ED: it often is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cardionets_core.data.records import CineStack

RADIUS_MM = 60.0
HARMONICS = 3
PLATEAU_SHARE = 0.1
"""How far below the maximum the plateau reaches, as a share of maximum less minimum."""
MINIMUM_FRAMES = 8
MINIMUM_CHANGE = 0.01
"""Least change of the count, as a share of its maximum, in which phases can be told."""
SAMPLED = 20_000
"""Values that the threshold is found from, evenly spread."""
_BINS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Two frames, counted from 0 in the cine."""

    ed_frame: int
    es_frame: int


def with_phases(stack: CineStack, *, centre: tuple[float, float] | None = None) -> CineStack:
    """The stack with ED and ES: as given, else guessed (``phase_source`` is ``heuristic``), else unknown.

    Args:
        stack: any cine.
        centre: (row, column) of the heart where it is known already.
    """
    if stack.ed_frame is not None and stack.es_frame is not None:
        return stack
    found = find_phases(stack.pixels, spacing_mm=stack.spacing_mm, centre=centre)
    if found is None:
        return stack
    return replace(stack, ed_frame=found.ed_frame, es_frame=found.es_frame, phase_source="heuristic")


def find_phases(
    pixels: np.ndarray, *, spacing_mm: tuple[float, float], centre: tuple[float, float] | None = None
) -> Phases | None:
    """Guess ED and ES.

    Args:
        pixels: [F, Y, X] or [F, Z, Y, X].
        spacing_mm: (between rows, between columns).
        centre: (row, column) of the heart where it is known already.

    Returns:
        None for fewer than ``MINIMUM_FRAMES`` frames, or where nothing changes.
    """
    if len(pixels) < MINIMUM_FRAMES:
        return None
    curve = pool_mm2(pixels, spacing_mm=spacing_mm, centre=centre)
    smooth = smooth_cycle(curve)
    top, bottom = float(smooth.max()), float(smooth.min())
    if top - bottom <= MINIMUM_CHANGE * max(top, 0.0):
        return None
    ed_frame = int(smooth.argmax())
    for _ in range(len(smooth)):
        following = (ed_frame + 1) % len(smooth)
        if smooth[following] < top - PLATEAU_SHARE * (top - bottom):
            break
        ed_frame = following
    return Phases(ed_frame=ed_frame, es_frame=int(smooth.argmin()))


def pool_mm2(
    pixels: np.ndarray, *, spacing_mm: tuple[float, float], centre: tuple[float, float] | None = None
) -> np.ndarray:
    """Area of bright blood around the heart's centre in each frame, over the middle half of the slices.

    Args:
        pixels: [F, Y, X] or [F, Z, Y, X].
        spacing_mm: (between rows, between columns).
        centre: (row, column); None finds the centroid of motion.

    Returns:
        [F] in mm2; zeros where the image has no contrast.
    """
    slices = pixels[:, None] if pixels.ndim == 3 else pixels
    aside = slices.shape[1] // 4
    slices = slices[:, aside : slices.shape[1] - aside]
    rows, columns = slices.shape[2:]
    if centre is None:
        deviation = np.zeros((rows, columns))
        for place in range(slices.shape[1]):  # one by one: the whole would be copied
            deviation += slices[:, place].std(axis=0, dtype=np.float32)
        total = float(deviation.sum())
        if not total > 0:
            return np.zeros(len(slices))
        centre = (
            float(deviation.sum(axis=1) @ np.arange(rows)) / total,
            float(deviation.sum(axis=0) @ np.arange(columns)) / total,
        )
    y_mm = (np.arange(rows) - centre[0]) * spacing_mm[0]
    x_mm = (np.arange(columns) - centre[1]) * spacing_mm[1]
    box = np.s_[_reach(y_mm), _reach(x_mm)]
    near = np.hypot(y_mm[box[0], None], x_mm[None, box[1]]) < RADIUS_MM
    values = slices[:, :, *box].reshape(*slices.shape[:2], -1)[:, :, near.ravel()]
    area = spacing_mm[0] * spacing_mm[1]
    return np.asarray((values > _threshold(values)).sum(axis=(1, 2)) * area, dtype=np.float64)


def _reach(places_mm: np.ndarray) -> slice:
    """The part of an axis that lies within the radius."""
    inside = np.flatnonzero(np.abs(places_mm) < RADIUS_MM)
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def smooth_cycle(curve: np.ndarray) -> np.ndarray:
    """Mean and first harmonics of a curve that goes round."""
    spectrum = np.fft.rfft(curve)
    spectrum[HARMONICS + 1 :] = 0
    return np.fft.irfft(spectrum, len(curve))


def _threshold(values: np.ndarray) -> float:
    """The value that parts dark from bright with the least spread inside both."""
    if values.size == 0:
        return 0.0
    sample = values.reshape(-1)[:: max(1, values.size // SAMPLED)]
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    if not high > low:
        return high
    counts, edges = np.histogram(sample, _BINS, range=(low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    between = (sums[-1] * below / below[-1] - sums) ** 2 / np.maximum(below * (below[-1] - below), 1e-9)
    return float(middles[between.argmax()])
