"""The shapes of a beating heart in a 4-chamber view, in millimetres, from a latent heart.

Comes in: a ``Heart``. Goes out: ``Chambers``, the sizes of every chamber in every frame. It knows no pixels.

The left ventricle is half an ellipsoid cut at the mitral plane, and the atria are ellipses cut at it, so that
the area-length rule ``V = 8 A^2 / (3 pi L)`` (Dodge et al., Am Heart J 1960) gives back the volume that was
asked for. The right ventricle is a crescent on the septum; as no such rule fits it, ``CRESCENT`` times the
area-length volume is its volume here, in the drawing and in the measurement alike.

Legend: F frames. Axis u runs from the base to the apex, v from the septum to the lateral wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.hearts import Heart

CRESCENT = 3.0
"""Volume of the right ventricle over its area-length volume; an assumption of this simulation."""

ATRIAL_CUT = 0.55
"""Where the atrioventricular plane cuts an atrium: share of its semi-axis beyond the centre."""

APEX_SHARE = 0.7
"""The wall at the apex over the wall at the base."""

DENSITY_G_PER_ML = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Chambers:
    """Sizes in mm, each float64 [F] unless said otherwise.

    Attributes:
        base: u of the atrioventricular plane; the apex stays where it is.
        lv_length, lv_radius: semi-axes of the left ventricular half ellipse.
        wall: left ventricular wall at the base.
        rv_length, rv_width: of the crescent; its width at the base.
        la_radius, ra_radius: semi-axis of an atrium along u.
        la_side, ra_side: semi-axis of an atrium along v.
        la_centre, ra_centre: v of the atria's centres, floats.
        emptying: 0 at end diastole, 1 at end systole.
    """

    base: np.ndarray
    lv_length: np.ndarray
    lv_radius: np.ndarray
    wall: np.ndarray
    rv_length: np.ndarray
    rv_width: np.ndarray
    la_radius: np.ndarray
    ra_radius: np.ndarray
    la_side: np.ndarray
    ra_side: np.ndarray
    la_centre: float
    ra_centre: float
    emptying: np.ndarray


def chambers_of(
    heart: Heart, *, frames: int, slenderness: float = 1.0, atrial_width: float = 0.95
) -> Chambers:
    """Sizes of all chambers over one cycle; frame 0 is end diastole.

    Args:
        heart: the latent heart.
        frames: F.
        slenderness: length of the left ventricle relative to the usual one of its volume.
        atrial_width: semi-axis of the atria across over along.
    """
    emptying = _emptying(np.arange(frames) / frames, heart.heart_rate_bpm)
    lv_ml = heart.lv_end_diastolic_ml * (1.0 - heart.ejection_fraction * emptying)
    rv_ml = heart.rv_end_diastolic_ml * (1.0 - heart.rv_ejection_fraction * emptying)
    la_ml = heart.la_max_ml * (1.0 - heart.la_emptying_fraction * (1.0 - emptying))
    ra_ml = heart.ra_max_ml * (1.0 - heart.ra_emptying_fraction * (1.0 - emptying))

    rest = 88.0 * slenderness * (heart.lv_end_diastolic_ml / 150.0) ** 0.30
    shortening = 0.31 * heart.ejection_fraction
    lv_length = rest * (1.0 - shortening * emptying)
    lv_radius = np.sqrt(3000.0 * lv_ml / (2.0 * np.pi * lv_length))
    wall = _wall(lv_length, lv_radius, end_diastolic_mm=heart.wall_thickness_mm)

    rv_length = 0.88 * lv_length
    rv_area = np.sqrt(1000.0 * rv_ml * 3.0 * np.pi * rv_length / (8.0 * CRESCENT))
    la_radius, ra_radius = (_atrial_radius(ml, width=atrial_width) for ml in (la_ml, ra_ml))
    la_side, ra_side = atrial_width * la_radius, atrial_width * ra_radius
    return Chambers(
        base=rest - lv_length,
        lv_length=lv_length,
        lv_radius=lv_radius,
        wall=wall,
        rv_length=rv_length,
        rv_width=4.0 * rv_area / (np.pi * rv_length),
        la_radius=la_radius,
        ra_radius=ra_radius,
        la_side=la_side,
        ra_side=ra_side,
        la_centre=2.0,
        ra_centre=2.0 - float(la_side.max()) - float(ra_side.max()) - 4.0,
        emptying=emptying,
    )


def mass_g(heart: Heart) -> float:
    """Left ventricular mass: the end-diastolic shell between two half ellipsoids, times its density."""
    shapes = chambers_of(heart, frames=1)
    return float(DENSITY_G_PER_ML * _shell_ml(shapes.lv_length, shapes.lv_radius, shapes.wall)[0])


def _emptying(phase: np.ndarray, heart_rate_bpm: float) -> np.ndarray:
    """Share of the stroke volume that has left the ventricle, [F]: ejection, fast filling, rest, atrial kick.

    Systole takes a larger part of a faster beat (Weissler et al., Circulation 1968, in round numbers).
    """
    systole = float(np.clip(0.34 + 0.0023 * (heart_rate_bpm - 65.0), 0.28, 0.46))
    kick_starts = 0.86
    filling_s = 0.5 * (kick_starts - systole)
    eject = _smooth(phase / systole)
    fill = _smooth((phase - systole - 0.03) / filling_s)
    kick = _smooth((phase - kick_starts) / (1.0 - kick_starts))
    return eject - 0.72 * fill - 0.28 * kick


def _smooth(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def _shell_ml(length: np.ndarray, radius: np.ndarray, wall: np.ndarray) -> np.ndarray:
    outer = np.square(radius + wall) * (length + APEX_SHARE * wall)
    return 2.0 * np.pi / 3000.0 * (outer - np.square(radius) * length)


def _wall(length: np.ndarray, radius: np.ndarray, *, end_diastolic_mm: float) -> np.ndarray:
    """The wall of each frame: muscle keeps its volume, so it thickens as the cavity shrinks (Newton)."""
    wall = np.full_like(length, end_diastolic_mm)
    muscle = _shell_ml(length[:1], radius[:1], wall[:1])
    for _ in range(8):
        slope = (_shell_ml(length, radius, wall + 1e-4) - _shell_ml(length, radius, wall)) / 1e-4
        wall = wall + (muscle - _shell_ml(length, radius, wall)) / slope
    return wall


def _atrial_radius(volume_ml: np.ndarray, *, width: float) -> np.ndarray:
    """Semi-axis along u of a cut ellipse whose area-length volume is given."""
    area = width * (np.pi / 2 + np.arcsin(ATRIAL_CUT) + ATRIAL_CUT * np.sqrt(1 - ATRIAL_CUT**2))
    unit_volume = 8.0 * area**2 / (3.0 * np.pi * (1.0 + ATRIAL_CUT))
    return np.cbrt(1000.0 * volume_ml / unit_volume)
