"""Cines of any view: one spacing, 50 frames, 96 x 96 pixels, uint8 (SCIENCE section 3, CMR steps 2 to 6).

Step 2 of the walk. Comes in: a reader's stack. Goes out: what the cache holds of one plane of it, and what
the report tells of it. All steps but the last are linear, so only the pixels of the window are resampled; the
weights are sparse, so the bytes do not depend on the number of threads.

A short axis has a window of 80 x 80 pixels: the heart's box fits it, it lies inside the image where it can,
and its contrast sets the scale. It is the middle of the 96 x 96 that are kept, as of every view; the rim of 8
pixels shows what of the image lies there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from cardionets_core.data.cine_phases import with_phases
from cardionets_core.data.cine_plane import choose_slice, place_window
from cardionets_core.data.records import SAX_FIELD_PIXELS, CineStack
from cardionets_core.errors import RecordRefused

SPACING_MM = 1.8269
FRAMES = 50
PIXELS = 96
FIELD_PIXELS: dict[str, int] = {"sax": SAX_FIELD_PIXELS}
"""Side of the window where it is not all that is kept."""
FRAME_LIMITS = (20, 60)
SPACING_LIMITS_MM = (0.3, 5.0)
PERCENTILES = (0.5, 99.5)
MINIMUM_FIELD_MM = 80.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCine:
    """One plane of one view, ready to be packed.

    Attributes:
        pixels: uint8 [50, 96, 96]; outside the image 0.
        flags: doubts that did not stop it, ``centre-by-motion`` for one.
        facts: name to number or word for the report: frames, slices, row_mm, ed_frame and the like.
    """

    pixels: np.ndarray
    flags: frozenset[str]
    facts: dict[str, float | str]


def prepare_cine(stack: CineStack) -> PreparedCine:
    """Choose a plane, resample, crop and scale one cine.

    Args:
        stack: [F, Y, X] or [F, Z, Y, X] with its spacing.

    Returns:
        The packed plane. Facts, as far as known: ``frames``, ``slices``, ``slice`` (from 0), ``row_mm``,
        ``column_mm``, ``slice_mm``, ``frame_ms``, ``ed_frame`` and ``es_frame`` (from 0, in the file's
        frames), ``ed_frame_50`` and ``es_frame_50`` (in the packed ones), ``phase_source``, ``scale``.

    Raises:
        RecordRefused: ``cine-frames``, ``cine-spacing``, ``cine-unreadable`` (not finite) or ``cine-flat``.
    """
    frames, rows, columns = len(stack.pixels), *stack.pixels.shape[-2:]
    if stack.pixels.ndim not in (3, 4) or not FRAME_LIMITS[0] <= frames <= FRAME_LIMITS[1]:
        raise RecordRefused("cine-frames", f"{frames} frames")
    if not all(SPACING_LIMITS_MM[0] <= spacing <= SPACING_LIMITS_MM[1] for spacing in stack.spacing_mm):
        raise RecordRefused("cine-spacing", f"{stack.spacing_mm} mm")
    field_mm = min(rows * stack.spacing_mm[0], columns * stack.spacing_mm[1])
    if field_mm < MINIMUM_FIELD_MM:
        raise RecordRefused("cine-spacing", f"the image is only {field_mm:.0f} mm wide")
    facts: dict[str, float | str] = {"frames": frames, "slices": 1}
    pixels, mask = stack.pixels, stack.mask
    if pixels.ndim == 4:
        stack = with_phases(stack)
        place = choose_slice(stack)
        facts |= {"slices": pixels.shape[1], "slice": place}
        pixels, mask = pixels[:, place], None if mask is None else mask[:, place]
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    if not np.isfinite(pixels).all() or float(np.abs(pixels).max()) > 1e12:
        raise RecordRefused("cine-unreadable", "a pixel is not a finite number")
    field = FIELD_PIXELS.get(stack.view, PIXELS)
    window = place_window(pixels, mask, spacing_mm=stack.spacing_mm, field_mm=field * SPACING_MM)
    if stack.ed_frame is None and stack.pixels.ndim == 3:
        stack = with_phases(stack, centre=window.centre)
    weights_y, inside_y = window_weights(
        rows, spacing_mm=stack.spacing_mm[0] / window.scale, centre=window.centre[0], field=field
    )
    weights_x, inside_x = window_weights(
        columns, spacing_mm=stack.spacing_mm[1] / window.scale, centre=window.centre[1], field=field
    )
    # [Y, F X] -> [96, F X], then [X, F 96] -> [96, F 96].
    by_row = weights_y @ pixels.transpose(1, 0, 2).reshape(rows, frames * columns)
    by_row = by_row.reshape(PIXELS, frames, columns).transpose(2, 1, 0).reshape(columns, frames * PIXELS)
    cropped = (weights_x @ by_row).reshape(PIXELS, frames, PIXELS).transpose(1, 2, 0)
    pixels_FYX = _to_uint8(
        resample_time(cropped), inside=inside_y[:, None] & inside_x[None, :], rim=(PIXELS - field) // 2
    )
    flags = stack.flags | ({"centre-by-motion"} if window.by_motion else set())
    return PreparedCine(pixels=pixels_FYX, flags=flags, facts=facts | _facts(stack, scale=window.scale))


def _facts(stack: CineStack, *, scale: float) -> dict[str, float | str]:
    """What the report tells of a stack; what is not known is left out."""
    facts: dict[str, float | str | None] = {
        "row_mm": stack.spacing_mm[0],
        "column_mm": stack.spacing_mm[1],
        "slice_mm": stack.slice_spacing_mm,
        "frame_ms": stack.frame_ms,
        "ed_frame": stack.ed_frame,
        "es_frame": stack.es_frame,
        "phase_source": stack.phase_source or None,
        "scale": scale,
    }
    for name in ("ed_frame", "es_frame"):
        frame = getattr(stack, name)
        facts[f"{name}_50"] = None if frame is None else round(frame * FRAMES / len(stack.pixels)) % FRAMES
    return {name: value for name, value in facts.items() if value is not None}


def window_weights(
    size: int, *, spacing_mm: float, centre: float, field: int = PIXELS
) -> tuple[csr_array, np.ndarray]:
    """Weights that take one axis of the image to the 96 pixels that are kept at 1.8269 mm.

    Linear interpolation between pixel centres; where the image shrinks, the triangle widens by the same
    factor, which keeps finer detail from folding back. The window is centred and then moved inside the
    image; an image smaller than it is padded on both sides.

    Args:
        size: pixels of the axis.
        spacing_mm: between them.
        centre: where the window should lie, in pixels of the image.
        field: pixels of the window; it is the middle of the 96.

    Returns:
        Float32 sparse [96, size], and bool [96], which rows lie in the image.
    """
    step = SPACING_MM / spacing_mm
    resampled = max(1, round(size / step))
    free = resampled - field
    wanted = round((centre + 0.5) / step - 0.5 - (field - 1) / 2)
    start = min(max(wanted, 0), free) if free >= 0 else -((-free) // 2)
    start -= (PIXELS - field) // 2
    places = np.arange(start, start + PIXELS)
    inside = (places >= 0) & (places < resampled)
    middle = (places + 0.5) * step - 0.5
    reach = max(step, 1.0)
    distance = np.abs(np.arange(size)[None, :] - np.clip(middle, 0, size - 1)[:, None])
    weights = np.clip(1.0 - distance / reach, 0.0, None) * inside[:, None]
    sums = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
    return csr_array(weights.astype(np.float32)), inside


def resample_time(window: np.ndarray) -> np.ndarray:
    """Cyclic linear interpolation of [F, Y, X] to 50 frames: after the last frame comes the first."""
    frames = len(window)
    if frames == FRAMES:
        return window
    position = np.arange(FRAMES) * (frames / FRAMES)
    before = np.floor(position).astype(np.int64)
    share = (position - before).astype(np.float32)[:, None, None]
    return window[before] * (1 - share) + window[(before + 1) % frames] * share


def _to_uint8(window: np.ndarray, *, inside: np.ndarray, rim: int) -> np.ndarray:
    middle = np.s_[rim : PIXELS - rim, rim : PIXELS - rim]
    shown = window[:, *middle][:, inside[middle]]
    low, high = (float(value) for value in np.percentile(shown, PERCENTILES))
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-30):
        raise RecordRefused("cine-flat", "the window has no contrast")
    scaled = np.clip((window - np.float32(low)) * np.float32(255.0 / (high - low)), 0, 255)
    return np.ascontiguousarray(np.where(inside, np.rint(scaled), 0).astype(np.uint8))
