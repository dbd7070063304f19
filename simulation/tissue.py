"""The picture of a cine: blood, muscle, fat and lung as balanced SSFP shows them, shading and noise.

Comes in: the outlines of the chambers. Goes out: pixels in scanner counts. It decides on no chamber's shape.
Three steps: draw the tissue, lay the heart over what does not move, expose.

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tissue:
    """What each pixel would show of each tissue, blood being 1; each float32 [N].

    Attributes:
        still: what does not move: lungs, chest wall, liver, spine, aorta.
        blood, muscle, fat: of the heart.
    """

    still: np.ndarray
    blood: np.ndarray
    muscle: np.ndarray
    fat: np.ndarray

    def at(self, pixels: np.ndarray) -> Tissue:
        """The tissue of some pixels, given by flat index."""
        return Tissue(
            still=self.still[pixels],
            blood=self.blood[pixels],
            muscle=self.muscle[pixels],
            fat=self.fat[pixels],
        )


def draw_tissue(scanner: Scanner, rng: np.random.Generator) -> Tissue:
    """Draw the tissue of every pixel of the image, in flat order."""
    shape = (scanner.pixels, scanner.pixels)
    return Tissue(
        still=_surroundings(shape, scanner, rng).ravel(),
        blood=(BLOOD * (1.0 + 0.05 * _texture(shape, 2.0, rng))).ravel(),
        muscle=(MUSCLE / scanner.contrast * (1.0 + 0.10 * _texture(shape, 1.2, rng))).ravel(),
        fat=(0.5 * FAT * (1.0 + 0.2 * _texture(shape, 2.5, rng))).ravel(),
    )


def lay_heart(
    image: np.ndarray, outlines: Outlines, tissue: Tissue, *, edge_mm: float, emptying: np.ndarray
) -> np.ndarray:
    """Lay the heart over the still picture, outermost first.

    Args:
        image: float32 [F, N], changed in place.
        outlines: the chambers at the same pixels.
        tissue: of the same pixels.
        edge_mm: half width of a soft edge.
        emptying: [F], 0 at end diastole, 1 at end systole.

    Returns:
        The same image.
    """
    # Fast filling dephases some spins: blood dims a little while the volume changes.
    change = np.gradient(emptying)
    pulse = (1.0 - 0.010 * np.abs(change) * len(emptying)).astype(np.float32)[:, None]
    blood, muscle = tissue.blood * pulse, tissue.muscle

    def lay(distance: np.ndarray, colour: np.ndarray) -> None:
        cover = distance * np.float32(-0.5 / edge_mm)
        cover += np.float32(0.5)
        np.clip(cover, np.float32(0), np.float32(1), out=cover)
        difference = colour - image
        difference *= cover
        np.add(image, difference, out=image)

    ventricles, atria = np.minimum(outlines.epicardium, outlines.rv), np.minimum(outlines.la, outlines.ra)
    lay(np.minimum(ventricles, atria) - 6.0, tissue.fat)
    lay(np.minimum(np.minimum(outlines.epicardium, outlines.rv - 2.8), atria - 2.0), muscle)
    lay(outlines.rv, 0.95 * blood)
    lay(atria, 0.92 * blood)
    lay(outlines.epicardium, muscle)
    lay(outlines.lv, blood)

    # Valves: closed leaflets are a thin grey line while the ventricle empties, open ones are hardly seen.
    closed = (0.35 + 0.65 * (change > 0)).astype(np.float32)[:, None]
    mouths = np.maximum(np.abs(outlines.up) - 1.0, np.minimum(outlines.lv, outlines.rv) - 1.5)
    lay(mouths, closed * 0.5 + (1 - closed) * 0.9 * tissue.blood)
    return image


def expose(image: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Shade by the coils, scale to counts and add Rician noise, in place.

    Args:
        image: float32 [F, Y, X], blood being 1.
        scanner: shading, gain and noise.
        rng: draws shading and noise.

    Returns:
        The same image as whole counts, 0 to 4095.
    """
    shading = _shading((scanner.pixels, scanner.pixels), scanner, rng) * np.float32(scanner.gain)
    noise = np.float32(scanner.noise * scanner.gain)
    # The magnitude of a signal with noise in both of its channels.
    for frame in image:
        frame *= shading
        frame += noise * rng.standard_normal(frame.shape, dtype=np.float32)
        np.square(frame, out=frame)
        frame += np.square(noise * rng.standard_normal(frame.shape, dtype=np.float32))
        np.sqrt(frame, out=frame)
        np.rint(frame, out=frame)
        np.clip(frame, np.float32(0), np.float32(4095), out=frame)
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
