"""How the windows of a preset are made of the kept recordings, by name (between steps 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cardionets_core.data.image_windows import gather_image_windows
from cardionets_core.data.records import LEADS
from cardionets_core.data.windows import InputShape, gather_windows

Gather = Callable[..., np.ndarray]


def _standardised(*places: np.ndarray, generator: np.random.Generator | None, **sizes: int) -> np.ndarray:
    return gather_windows(*places, **sizes)  # type: ignore[arg-type]


WINDOW_KINDS: dict[str, Gather] = {"standardised": _standardised, "image": gather_image_windows}
"""Name of ``InputShape.ecg_window`` to what makes such windows."""


def windows_of(
    shape: InputShape,
    counts: np.ndarray,
    begins: np.ndarray,
    totals: np.ndarray,
    starts: np.ndarray,
    *,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """One window of each of some packed recordings, as a preset's encoder takes it.

    Args:
        shape: of the preset.
        counts: int16, flat.
        begins: int64 [B], places in ``counts``.
        totals: int64 [B], samples a lead.
        starts: int64 [B], first sample of each window.
        generator: in training, for kinds that are augmented beyond the random start.

    Returns:
        Float32 [B, leads, T]; T is ``shape.ecg_samples``, or twice as many.

    Raises:
        ValueError: a window does not lie inside its recording, or a recording not inside ``counts``.
    """
    gather = WINDOW_KINDS[shape.ecg_window]
    return gather(
        counts, begins, totals, starts, length=shape.ecg_samples, leads=len(LEADS), generator=generator
    )
