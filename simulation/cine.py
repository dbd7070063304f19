"""A latent heart becomes a 4-chamber cine: labelled masks, and the pixels that a scanner would give.

Comes in: a ``Heart``, a ``Scanner`` and a generator. Goes out: a ``DrawnCine``. Labels: 1 left ventricle,
2 myocardium, 3 right ventricle, 4 left atrium, 5 right atrium. Shapes come from ``anatomy.py``; this module
places them in the image and rasters them. A pixel belongs to the shape that holds its centre; the painted
edges are softened over about a pixel by the signed distance to the outline. The picture itself (tissue,
shading, noise) is painted by ``tissue.py``.

Legend: F frames, Y rows, X columns, N pixels near the heart. In mm: u from base to apex, v from the septum to
the lateral wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardionets_core.data.records import CineStack
from simulation.anatomy import APEX_SHARE, ATRIAL_CUT, Chambers, chambers_of
from simulation.hearts import Heart
from simulation.machines import Scanner
from simulation.tissue import Outlines, draw_tissue, expose, lay_heart

LV, MYO, RV, LA, RA = 1, 2, 3, 4, 5
PIXELS_AT_A_TIME = 500
"""So many stay in the processor's cache: twice as fast as all at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnCine:
    """A cine with the truth about it.

    Attributes:
        stack: what a reader should give back; the pixels are whole counts.
        masks: uint8 in the shape of the pixels.
        axis_yx: unit vector from base to apex in (row, column) direction; zeros for a short axis.
        shapes: sizes of what is shown.
    """

    stack: CineStack
    masks: np.ndarray
    axis_yx: tuple[float, float]
    shapes: Chambers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pose:
    """Where the heart lies: angle of its axis to the right of up, and its middle in mm from the image's."""

    angle_rad: float
    shift_yx_mm: tuple[float, float]


def draw_cine(heart: Heart, scanner: Scanner, rng: np.random.Generator) -> DrawnCine:
    """Draw a cine of one cycle; frame 0 is end diastole.

    Args:
        heart: the latent heart.
        scanner: the machine and its protocol.
        rng: draws the pose, the tissue and the noise.

    Returns:
        Masks and pixels of ``scanner.frames`` frames.
    """
    shapes = draw_shapes(heart, scanner, rng)
    tilt, row, column = rng.standard_normal(3)
    pose = _Pose(angle_rad=np.radians(36.0 + 6.0 * tilt), shift_yx_mm=(2.5 * float(row), 2.5 * float(column)))
    u, v = _heart_axes(shapes, pose, scanner)
    tissue = draw_tissue(scanner, rng)
    masks = np.zeros((scanner.frames, u.size), dtype=np.uint8)
    image = np.broadcast_to(tissue.still, masks.shape).copy()
    near = _near(shapes, u, v)
    for some in np.array_split(near, max(1, near.size // PIXELS_AT_A_TIME)):
        outlines = _outlines(shapes, u.ravel()[some], v.ravel()[some])
        masks[:, some] = _labels(outlines)
        edge_mm = 0.6 * scanner.spacing_mm
        image[:, some] = lay_heart(
            image[:, some], outlines, tissue.at(some), edge_mm=edge_mm, emptying=shapes.emptying
        )
    pixels = expose(image.reshape(scanner.frames, *u.shape), scanner, rng)
    return DrawnCine(
        stack=CineStack(
            pixels=pixels,
            spacing_mm=(scanner.spacing_mm, scanner.spacing_mm),
            frame_ms=round(60_000.0 / heart.heart_rate_bpm / scanner.frames, 3),
        ),
        masks=masks.reshape(scanner.frames, *u.shape),
        axis_yx=(-float(np.cos(pose.angle_rad)), float(np.sin(pose.angle_rad))),
        shapes=shapes,
    )


def draw_shapes(heart: Heart, scanner: Scanner, rng: np.random.Generator) -> Chambers:
    """Sizes of the heart over the scanner's frames, with what is individual in its proportions."""
    return chambers_of(
        heart,
        frames=scanner.frames,
        slenderness=float(np.exp(0.03 * rng.standard_normal())),
        atrial_width=float(rng.uniform(0.88, 1.0)),
    )


def _heart_axes(shapes: Chambers, pose: _Pose, scanner: Scanner) -> tuple[np.ndarray, np.ndarray]:
    """u and v of each pixel's centre, float32 [Y, X]; the heart's middle lies near the image's."""
    cosine, sine = np.cos(pose.angle_rad), np.sin(pose.angle_rad)
    ends = _ends(shapes)
    down, right = -cosine * ends[:, 0] + sine * ends[:, 1], sine * ends[:, 0] + cosine * ends[:, 1]
    along = (np.arange(scanner.pixels) - 0.5 * (scanner.pixels - 1)) * scanner.spacing_mm
    rows = along[:, None] - pose.shift_yx_mm[0] + 0.5 * (down.min() + down.max())
    columns = along[None, :] - pose.shift_yx_mm[1] + 0.5 * (right.min() + right.max())
    u, v = -cosine * rows + sine * columns, sine * rows + cosine * columns
    return u.astype(np.float32), v.astype(np.float32)


def _ends(shapes: Chambers) -> np.ndarray:
    """Points (u, v) on the outermost outlines, float64 [points, 2] in mm."""
    turn = np.linspace(0.0, np.pi, 13)
    side = float((shapes.lv_radius + shapes.wall)[0])
    apex = float(shapes.lv_length[0] + APEX_SHARE * shapes.wall[0])
    right = float(shapes.rv_width[0])
    upper = [(apex * np.sin(t), side * np.cos(t)) for t in turn]
    upper += [(float(shapes.rv_length[0]) * np.sin(t), -(side + right) * abs(np.cos(t))) for t in turn]
    for radius, width, centre in (
        (float(shapes.la_radius.max()), float(shapes.la_side.max()), shapes.la_centre),
        (float(shapes.ra_radius.max()), float(shapes.ra_side.max()), shapes.ra_centre),
    ):
        upper += [(-ATRIAL_CUT * radius - radius * np.sin(t), centre + width * np.cos(t)) for t in turn]
    return np.array(upper)


def _near(shapes: Chambers, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Flat indices of the pixels that a frame's shapes can reach; the rest is not computed frame by frame."""
    margin = 12.0
    (low_u, low_v), (high_u, high_v) = _ends(shapes).min(axis=0), _ends(shapes).max(axis=0)
    inside = (u > low_u - margin) & (u < high_u + margin) & (v > low_v - margin) & (v < high_v + margin)
    return np.flatnonzero(inside)


def _outlines(shapes: Chambers, u: np.ndarray, v: np.ndarray) -> Outlines:
    """Signed distances to each outline in mm (negative inside), float32 [F, N]."""

    def each(sizes: np.ndarray) -> np.ndarray:
        return sizes.astype(np.float32)[:, None]

    up = u[None] - each(shapes.base)
    across = np.broadcast_to(v[None], up.shape)
    outer_length = each(shapes.lv_length + APEX_SHARE * shapes.wall)
    outer_radius = each(shapes.lv_radius + shapes.wall)
    lv = np.maximum(to_ellipse(up, across, each(shapes.lv_length), each(shapes.lv_radius)), -up)
    epicardium = np.maximum(to_ellipse(up, across, outer_length, outer_radius), -up)

    septum = outer_radius * np.sqrt(np.clip(1.0 - np.square(up / outer_length), 0.0, None))
    crescent = each(shapes.rv_width) * np.sqrt(
        np.clip(1.0 - np.square(up / each(shapes.rv_length)), 0.0, None)
    )
    beyond = np.maximum(-(across + septum + crescent), across + septum)
    rv = np.maximum(np.maximum(beyond, -up), up - each(shapes.rv_length))

    def atrium(radius: np.ndarray, side: np.ndarray, centre: float) -> np.ndarray:
        below = up + each(ATRIAL_CUT * radius)
        return np.maximum(to_ellipse(below, across - np.float32(centre), each(radius), each(side)), up)

    return Outlines(
        up=up,
        across=across,
        lv=lv,
        epicardium=epicardium,
        rv=rv,
        la=atrium(shapes.la_radius, shapes.la_side, shapes.la_centre),
        ra=atrium(shapes.ra_radius, shapes.ra_side, shapes.ra_centre),
    )


def to_ellipse(along: np.ndarray, across: np.ndarray, length: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Distance to an ellipse along the ray from its centre; its sign is exact, its size near enough."""
    along2, across2 = np.square(along), np.square(across)
    scaled = along2 / np.square(length)
    scaled += across2 / np.square(radius)
    np.sqrt(scaled, out=scaled)
    scaled += np.float32(1e-6)
    along2 += across2
    distance = np.sqrt(along2, out=along2)
    distance -= np.divide(distance, scaled, out=scaled)
    return distance


def _labels(outlines: Outlines) -> np.ndarray:
    labels = np.zeros(outlines.lv.shape, dtype=np.uint8)
    for value, distance in (
        (RA, outlines.ra),
        (LA, outlines.la),
        (RV, outlines.rv),
        (MYO, outlines.epicardium),
    ):
        labels[distance < 0] = value
    labels[outlines.lv < 0] = LV
    return labels
