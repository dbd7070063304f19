"""A latent heart becomes a short-axis stack: slices across the long axis, from base to apex.

Comes in: a ``Heart``, a ``Scanner`` and a generator, and the sizes that the 4-chamber view shows, so that
both views show one heart. Goes out: a ``DrawnCine`` of a stack. Labels: 1 left ventricle, 2 myocardium, 3
right ventricle; atria, which the upper slices meet in systole, are painted and have no label. Left
ventricle and wall are the bodies of revolution that the 4-chamber view cuts in half; the right ventricle is
an ellipse on the septal side, less the left one, and in the plane of that view as wide as there.

Legend: F frames, Z slices, Y rows, X columns, N pixels near the heart. In mm: u from base to apex, v from the
septum to the lateral wall, w across both.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.data.records import CineStack
from simulation.anatomy import APEX_SHARE, ATRIAL_CUT, Chambers
from simulation.cine import LV, MYO, PIXELS_AT_A_TIME, RV, DrawnCine, draw_shapes, to_ellipse
from simulation.hearts import Heart
from simulation.machines import Scanner
from simulation.tissue import Outlines, draw_tissue, expose, lay_heart

SLICES = 7
LEAST_SPACING_MM = 10.0
"""Between neighbouring slices; more where seven would not reach the apex."""
_MARGIN_MM, _FAR_MM = 12.0, 1000.0


def draw_short_axis(
    heart: Heart, scanner: Scanner, rng: np.random.Generator, *, shapes: Chambers | None = None
) -> DrawnCine:
    """Draw a short-axis stack of one cycle; frame 0 is end diastole, slice 0 the base.

    The slices stay where they are while the base descends, so the upper ones leave the ventricle in systole.

    Args:
        heart: the latent heart.
        scanner: the machine and its protocol.
        rng: draws the pose, the tissue and the noise, and the proportions where no shapes are given.
        shapes: of the same heart's 4-chamber cine.

    Returns:
        Masks and pixels of ``scanner.frames`` frames and ``SLICES`` slices.
    """
    shapes = draw_shapes(heart, scanner, rng) if shapes is None else shapes
    turn, row, column = rng.standard_normal(3)
    v, w = _plane_axes(
        shapes, scanner, turn_rad=float(np.radians(8.0 * turn)), shift_yx_mm=(2.5 * row, 2.5 * column)
    )
    spacing_mm = slice_spacing_mm(shapes)
    tissue = draw_tissue(scanner, rng)
    masks = np.zeros((scanner.frames, SLICES, v.size), dtype=np.uint8)
    image = np.broadcast_to(tissue.still, masks.shape).copy()
    near = _near(shapes, v, w)
    for place in range(SLICES):
        level = (place + 0.5) * spacing_mm
        for some in np.array_split(near, max(1, near.size // PIXELS_AT_A_TIME)):
            outlines = _outlines(shapes, level, v[some], w[some])
            masks[:, place, some] = _labels(outlines)
            image[:, place, some] = lay_heart(
                image[:, place, some],
                outlines,
                tissue.at(some),
                edge_mm=0.6 * scanner.spacing_mm,
                emptying=shapes.emptying,
            )
    size = (scanner.pixels, scanner.pixels)
    pixels = expose(image.reshape(-1, *size), scanner, rng)
    return DrawnCine(
        stack=CineStack(
            pixels=pixels.reshape(scanner.frames, SLICES, *size),
            spacing_mm=(scanner.spacing_mm, scanner.spacing_mm),
            slice_spacing_mm=spacing_mm,
            frame_ms=round(60_000.0 / heart.heart_rate_bpm / scanner.frames, 3),
            view="sax",
        ),
        masks=masks.reshape(scanner.frames, SLICES, *size),
        axis_yx=(0.0, 0.0),
        shapes=shapes,
    )


def slice_spacing_mm(shapes: Chambers) -> float:
    """Distance of the slices with which the stack reaches from the base to the apex at end diastole."""
    return max(LEAST_SPACING_MM, round(float(shapes.lv_length[0]) / SLICES, 1))


def _plane_axes(
    shapes: Chambers, scanner: Scanner, *, turn_rad: float, shift_yx_mm: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """v and w of each pixel's centre, float32, flat; the right ventricle lies to the image's left."""
    along = (np.arange(scanner.pixels) - 0.5 * (scanner.pixels - 1)) * scanner.spacing_mm
    rows, columns = along[:, None] - shift_yx_mm[0], along[None, :] - shift_yx_mm[1]
    cosine, sine = np.cos(turn_rad), np.sin(turn_rad)
    v = cosine * columns + sine * rows - 0.5 * shapes.rv_width[0]
    w = cosine * rows - sine * columns
    return v.astype(np.float32).ravel(), w.astype(np.float32).ravel()


def _near(shapes: Chambers, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Flat indices of the pixels that any frame's shapes can reach in any slice."""
    side = float((shapes.lv_radius + shapes.wall).max())
    width = float(shapes.rv_width.max())
    left = min(-(side + width), shapes.ra_centre - float(shapes.ra_side.max()))
    right = max(side, shapes.la_centre + float(shapes.la_side.max()))
    high = max(0.8 * side + 0.35 * width, side, float(shapes.la_side.max()), float(shapes.ra_side.max()))
    inside = (v > left - _MARGIN_MM) & (v < right + _MARGIN_MM) & (np.abs(w) < high + _MARGIN_MM)
    return np.flatnonzero(inside)


def _outlines(shapes: Chambers, level: float, v: np.ndarray, w: np.ndarray) -> Outlines:
    """Signed distances to each outline in a slice in mm (negative inside), float32 [F, N]."""

    def each(sizes: np.ndarray) -> np.ndarray:
        return sizes.astype(np.float32)[:, None]

    up = np.broadcast_to(each(level - shapes.base), (len(shapes.base), v.size))
    across, aside = np.broadcast_to(v[None], up.shape), np.broadcast_to(w[None], up.shape)
    out = np.hypot(across, aside)
    outer_length = each(shapes.lv_length + APEX_SHARE * shapes.wall)
    outer_radius = each(shapes.lv_radius + shapes.wall)
    lv = np.maximum(to_ellipse(up, out, each(shapes.lv_length), each(shapes.lv_radius)), -up)
    epicardium = np.maximum(to_ellipse(up, out, outer_length, outer_radius), -up)

    septum = outer_radius * np.sqrt(np.clip(1.0 - np.square(up / outer_length), 0.0, None))
    crescent = each(shapes.rv_width) * np.sqrt(
        np.clip(1.0 - np.square(up / each(shapes.rv_length)), 0.0, None)
    )
    # From the free wall, a crescent away from the septum, to the long axis; the left ventricle lies over it.
    half = np.maximum(0.5 * (septum + crescent), np.float32(1.0))
    tall = np.maximum(0.8 * septum + 0.35 * crescent, np.float32(1.0))
    rv = np.maximum(to_ellipse(across + half, aside, half, tall), septum - out)
    rv = np.maximum(np.maximum(rv, -up), up - each(shapes.rv_length))

    def atrium(radius: np.ndarray, side: np.ndarray, centre: float) -> np.ndarray:
        below = up + each(ATRIAL_CUT * radius)
        beside = np.hypot(across - np.float32(centre), aside)
        return np.maximum(to_ellipse(below, beside, each(radius), each(side)), up)

    return Outlines(
        up=np.full_like(across, _FAR_MM),  # leaflets that face the slice are too thin to be seen
        across=across,
        lv=lv,
        epicardium=epicardium,
        rv=rv,
        la=atrium(shapes.la_radius, shapes.la_side, shapes.la_centre),
        ra=atrium(shapes.ra_radius, shapes.ra_side, shapes.ra_centre),
    )


def _labels(outlines: Outlines) -> np.ndarray:
    labels = np.zeros(outlines.lv.shape, dtype=np.uint8)
    for value, distance in ((RV, outlines.rv), (MYO, outlines.epicardium), (LV, outlines.lv)):
        labels[distance < 0] = value
    return labels
