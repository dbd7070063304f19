"""The picture of a cine: blood, muscle, fat and lung as balanced SSFP shows them, shading and noise.

Comes in: the outlines of the chambers. Goes out: pixels in scanner counts. It decides on no chamber's shape.

Legend: F frames, Y rows, X columns, N pixels near the heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from simulation.machines import Scanner

BLOOD, MUSCLE, FAT, LUNG, LIVER, BONE = 1.0, 0.34, 0.85, 0.06, 0.40, 0.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outlines:
    """Signed distances in mm to the outlines, negative inside, each float32 [F, N].

    Attributes:
        up: distance above the atrioventricular plane, towards the apex.
        across: v, from the septum to the lateral wall.
        lv, epicardium, rv, la, ra: the chambers; the epicardium holds the left ventricle and its wall.
    """

    up: np.ndarray
    across: np.ndarray
    lv: np.ndarray
    epicardium: np.ndarray
    rv: np.ndarray
    la: np.ndarray
    ra: np.ndarray


def paint(
    outlines: Outlines,
    near: np.ndarray,
    *,
    scanner: Scanner,
    emptying: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Paint all frames.

    Args:
        outlines: the chambers at the pixels near the heart.
        near: int [N], flat indices of those pixels.
        scanner: matrix, contrast, shading, noise and gain.
        emptying: [F], 0 at end diastole, 1 at end systole.
        rng: draws the tissue and the noise.

    Returns:
        Whole counts as float32 [F, Y, X], 0 to 4095.
    """
    shape = (scanner.pixels, scanner.pixels)
    still = _surroundings(shape, scanner, rng).ravel()
    image = np.broadcast_to(still, (len(emptying), still.size)).copy()
    image[:, near] = _heart(image[:, near], outlines, near, scanner=scanner, emptying=emptying, rng=rng)
    image = image.reshape(len(emptying), *shape)
    image *= _shading(shape, scanner, rng) * np.float32(scanner.gain)
    # Rician: the magnitude of a signal with noise in both of its channels.
    noise = np.float32(scanner.noise * scanner.gain)
    image += noise * rng.standard_normal(image.shape, dtype=np.float32)
    np.square(image, out=image)
    image += np.square(noise * rng.standard_normal(image.shape, dtype=np.float32))
    np.sqrt(image, out=image)
    np.rint(image, out=image)
    return np.clip(image, np.float32(0), np.float32(4095), out=image)


def _heart(
    image: np.ndarray,
    outlines: Outlines,
    near: np.ndarray,
    *,
    scanner: Scanner,
    emptying: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay the heart over the still picture, outermost first; float32 [F, N]."""
    shape = (scanner.pixels, scanner.pixels)
    edge = 0.6 * scanner.spacing_mm

    def grain(size: float) -> np.ndarray:
        return _texture(shape, size, rng).ravel()[near]

    blood = BLOOD * (1.0 + 0.05 * grain(2.0))
    muscle = MUSCLE / scanner.contrast * (1.0 + 0.10 * grain(1.2))
    fat = 0.5 * FAT * (1.0 + 0.2 * grain(2.5))
    # Fast filling dephases some spins: blood dims a little while the volume changes.
    speed = np.abs(np.gradient(emptying)) * len(emptying)
    pulse = (1.0 - 0.010 * speed).astype(np.float32)[:, None]

    def lay(distance: np.ndarray, colour: np.ndarray | float) -> None:
        cover = distance * np.float32(-0.5 / edge)
        cover += np.float32(0.5)
        np.clip(cover, np.float32(0), np.float32(1), out=cover)
        change = colour - image
        change *= cover
        np.add(image, change, out=image)

    everything = np.minimum(
        np.minimum(outlines.epicardium, outlines.rv), np.minimum(outlines.la, outlines.ra)
    )
    lay(everything - 6.0, fat)
    thin_walls = np.minimum(outlines.rv - 2.8, np.minimum(outlines.la, outlines.ra) - 2.0)
    lay(thin_walls, muscle)
    lay(np.minimum(outlines.epicardium, outlines.rv - 2.8), muscle)
    lay(outlines.rv, 0.95 * blood * pulse)
    lay(np.minimum(outlines.la, outlines.ra), 0.92 * blood * pulse)
    lay(outlines.epicardium, muscle)
    lay(outlines.lv, blood * pulse)

    # Valves: closed leaflets are a thin grey line while the ventricle empties, open ones are hardly seen.
    closed = (0.35 + 0.65 * (np.gradient(emptying) > 0)).astype(np.float32)[:, None]
    mouths = np.maximum(np.abs(outlines.up) - 1.0, np.minimum(outlines.lv, outlines.rv) - 1.5)
    lay(mouths, closed * 0.5 + (1 - closed) * 0.9 * blood)
    return image


def _surroundings(shape: tuple[int, int], scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """What does not move: lungs, chest wall, liver, spine and aorta; float32 [Y, X]."""
    half = 0.5 * shape[0] * scanner.spacing_mm
    along = (np.arange(shape[0], dtype=np.float32) - 0.5 * (shape[0] - 1)) * np.float32(scanner.spacing_mm)
    down, right = along[:, None], along[None, :]
    move = rng.standard_normal(8)
    image = np.full(shape, LUNG, dtype=np.float32) * (1.0 + 0.6 * _texture(shape, 1.0, rng))

    def lay(distance: np.ndarray, colour: np.ndarray | float, softness: float = 1.5) -> None:
        cover = np.clip(0.5 - distance / (2.0 * softness), 0.0, 1.0)
        image[...] += cover * (colour - image)

    muscle = MUSCLE * (1.0 + 0.15 * _texture(shape, 1.5, rng))
    fat = FAT * (1.0 + 0.12 * _texture(shape, 2.5, rng))
    # Back of the mediastinum with the spine, then the descending aorta beside it.
    lay(np.hypot((right + 12.0 + 4 * move[0]) / 1.25, down - half - 2.0) - 34.0, muscle, 4.0)
    lay(
        np.hypot(right + 18.0 + 4 * move[0], down - half + 2.0) - 17.0,
        BONE * (1 + 0.3 * _texture(shape, 1.5, rng)),
    )
    lay(np.hypot(right - 14.0 + 3 * move[1], down - half + 24.0 + 2 * move[2]) - 11.5 - move[3], 0.9 * BLOOD)
    # Liver under the right heart.
    lay(
        np.hypot((right + half + 8.0) / 1.1, down - half * 0.55 + 6 * move[4]) - 44.0,
        LIVER * (1 + 0.12 * _texture(shape, 2.0, rng)),
        3.0,
    )
    # Chest wall in front: muscle and ribs, fat outside, air beyond.
    wall = -half + 17.0 + 3 * move[5] + 0.0042 * np.square(right + 15.0)
    lay(down - wall, muscle)
    ribs = 0.5 + 0.5 * np.sin(right / 7.5 + 6.28 * move[6])
    lay(np.abs(down - wall + 6.0) - 2.6 * ribs, 0.12)
    lay(down - wall + 11.0, fat)
    lay(down - wall + 21.0 + 3 * move[7], 0.01)
    return image.astype(np.float32)


def _shading(shape: tuple[int, int], scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Sensitivity of the coils: brighter in front, float32 [Y, X] with mean near 1."""
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    slope = rng.standard_normal(4)
    field = -(0.6 + 0.2 * slope[0]) * rows + 0.35 * slope[1] * columns + 0.2 * slope[2] * rows * columns
    return np.exp(scanner.bias * (field + 0.25 * slope[3] * np.square(columns))).astype(np.float32)


def _texture(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit SD with grains of a few pixels, float32 [Y, X]."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), grain, mode="wrap")
    return field / np.float32(field.std() + 1e-6)
