"""What all pictures share: how one is saved with its numbers, colours, and which frames of a cine are shown.

Legend: F frames, Y rows and X columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

OURS = "#1f5fa8"
OTHER = "#9a9a9a"
WARM = "#c8442e"
DOTS_PER_INCH = 130


def finish(figure: Figure, path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write a picture, and its arrays beside it; returns the picture's name."""
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
    if arrays:
        np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **arrays)
    return path.name


def full_and_empty(cine_FYX: np.ndarray) -> tuple[int, int]:
    """The frames in which the middle of a cine is brightest and darkest.

    The brighter centre is the larger pool of blood: a plain guide to the two frames, not a measurement.
    """
    margin = cine_FYX.shape[-1] // 4
    bright_F = cine_FYX[:, margin:-margin, margin:-margin].mean(axis=(1, 2))
    return int(bright_F.argmax()), int(bright_F.argmin())
