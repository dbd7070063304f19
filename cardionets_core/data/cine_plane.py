"""Which plane of a cine is packed, and where its window lies (SCIENCE section 3, CMR step 4).

Step 2 of the walk. Comes in: a stack. Goes out: one plane of it and the window's centre: that of the heart's
box where there is a segmentation, else the centroid of motion, which the cine's flags tell.

Legend: F frames, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, label

from cardionets_core.data.masks import LV, RV
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused

DILATION_MM = 5.0
"""By how much a mask grows before its largest piece is taken: wide enough to join the ventricles across a
thin wall, and a margin for the box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Where the window lies.

    Attributes:
        centre: (row, column), in pixels of the image.
        scale: by how much the image shrinks so that the heart fits, 1 where it does anyway.
        by_motion: there was no mask.
    """

    centre: tuple[float, float]
    scale: float
    by_motion: bool


def choose_slice(stack: CineStack) -> int:
    """The slice of a stack [F, Z, Y, X] that stands for it.

    With a segmentation the slice with most right ventricle at end-systole (or, where ES is not segmented, in
    all frames), else with most left ventricle; without one the middle slice.
    """
    middle = stack.pixels.shape[1] // 2
    if stack.mask is None:
        return middle
    mask = stack.mask
    if stack.es_frame is not None and mask[stack.es_frame].any():
        mask = mask[stack.es_frame : stack.es_frame + 1]
    for wanted in (RV, LV):
        areas = (mask == wanted).sum(axis=(0, 2, 3))
        if areas.any():
            return int(areas.argmax())
    return middle


def place_window(
    pixels_FYX: np.ndarray, mask_FYX: np.ndarray | None, *, spacing_mm: tuple[float, float], field_mm: float
) -> Window:
    """The window's centre and scale.

    Args:
        pixels_FYX: the plane.
        mask_FYX: its segmentation, or None.
        spacing_mm: (between rows, between columns).
        field_mm: side of the window.

    Raises:
        RecordRefused: ``cine-flat``, nothing moves and there is no mask.
    """
    box = None if mask_FYX is None else heart_box(mask_FYX, spacing_mm=spacing_mm)
    if box is None:
        return Window(centre=motion_centroid(pixels_FYX), scale=1.0, by_motion=True)
    top, bottom, left, right = box
    longest_mm = max((bottom - top) * spacing_mm[0], (right - left) * spacing_mm[1])
    centre = ((top + bottom - 1) / 2, (left + right - 1) / 2)
    return Window(centre=centre, scale=max(1.0, longest_mm / field_mm), by_motion=False)


def heart_box(mask_FYX: np.ndarray, *, spacing_mm: tuple[float, float]) -> tuple[int, int, int, int] | None:
    """The box of the heart over all frames: (top, bottom, left, right), ends excluded; None for an empty
    mask.

    In each frame the mask is dilated and its largest piece kept; the box is that of their union.
    """
    drawn = [frame for frame in mask_FYX > 0 if frame.any()]
    if not drawn:
        return None
    reach = [max(1, round(DILATION_MM / spacing)) for spacing in spacing_mm]
    y, x = (np.arange(-size, size + 1) / size for size in reach)
    disc = np.hypot(y[:, None], x[None, :]) <= 1
    # The work is done on the part of the image that can hold anything.
    anywhere = np.logical_or.reduce(drawn)
    rows, columns = np.flatnonzero(anywhere.any(axis=1)), np.flatnonzero(anywhere.any(axis=0))
    top, left = max(0, rows[0] - reach[0]), max(0, columns[0] - reach[1])
    part = np.s_[top : rows[-1] + reach[0] + 1, left : columns[-1] + reach[1] + 1]
    union = np.zeros(anywhere[part].shape, dtype=bool)
    for frame in drawn:
        pieces, _ = label(binary_dilation(frame[part], disc))
        union |= pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    return (int(top + rows[0]), int(top + rows[-1] + 1), int(left + columns[0]), int(left + columns[-1] + 1))


def motion_centroid(pixels_FYX: np.ndarray) -> tuple[float, float]:
    """Centroid (row, column) of the temporal standard deviation, in pixels of the image.

    Raises:
        RecordRefused: ``cine-flat``, nothing moves.
    """
    deviation = pixels_FYX.std(axis=0, dtype=np.float32).astype(np.float64)
    scale = float(np.abs(pixels_FYX).max())
    total = float(deviation.sum())
    if total <= 1e-6 * max(scale, 1e-30) * deviation.size:
        raise RecordRefused("cine-flat", "no pixel changes over time")
    rows = float(deviation.sum(axis=1) @ np.arange(deviation.shape[0])) / total
    columns = float(deviation.sum(axis=0) @ np.arange(deviation.shape[1])) / total
    return rows, columns
