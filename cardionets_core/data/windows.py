"""Where a window starts in a recording, and how it is standardised (SCIENCE section 3, ECG steps 6 and 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

EVALUATION_WINDOWS = 3

ShownView = Literal["4ch", "sax"]
"""Views that a batch can show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """What a preset's encoders take.

    Attributes:
        ecg_samples: samples of a window at 250 Hz, as recordings are kept.
        cine_frames: frames of a cine.
        cine_pixels: rows and columns of a 4-chamber cine.
        sax_pixels: rows and columns of a short-axis cine.
        view: which of the two a batch's ``cine_BFYX`` shows.
        ecg_window: how a window is made of the kept recording: ``standardised`` at 250 Hz, or an ``image`` at
            500 Hz, each lead within [-1, 1].
        covariates: whether a batch with ECGs also tells of age and sex.
        preset: name of the preset that these are the sizes of.
    """

    ecg_samples: int
    cine_frames: int
    cine_pixels: int
    sax_pixels: int = 0
    view: ShownView = "4ch"
    ecg_window: Literal["standardised", "image"] = "standardised"
    covariates: bool = False
    preset: str = ""

    def of_view(self, view: ShownView) -> InputShape:
        """The same sizes, for batches whose ``cine_BFYX`` shows a view."""
        return replace(self, view=view)


def evaluation_starts(samples: int, length: int) -> tuple[int, ...]:
    """Starts of the evaluation windows: first, middle, last, without repeats.

    Args:
        samples: length of the recording, at least ``length``.
        length: length of the window.
    """
    last = samples - length
    return tuple(sorted({0, last // 2, last}))


def gather_windows(
    counts: np.ndarray, begins: np.ndarray, totals: np.ndarray, starts: np.ndarray, *, length: int, leads: int
) -> np.ndarray:
    """One standardised window of each of some packed recordings.

    Args:
        counts: int16, flat, a memory map for one; recording b is ``[leads, totals[b]]`` from ``begins[b]``
            on.
        begins: int64 [B], places in ``counts``.
        totals: int64 [B], samples a lead.
        starts: int64 [B], first sample of each window.
        length: samples of a window.
        leads: of every recording.

    Returns:
        Float32 [B, leads, length], each window of zero mean and unit SD, whatever the volts a count.

    Raises:
        ValueError: a window does not lie inside its recording, or a recording not inside ``counts``.
    """
    from cardionets_core.data.kernels import standardise_windows  # numba, only where a batch is made

    counts, begins, totals, starts = checked_places(
        counts, begins, totals, starts, length=length, leads=leads
    )
    windows = np.empty((len(begins), leads, length), dtype=np.float32)
    standardise_windows(counts, begins, totals, starts, windows)
    return windows


def checked_places(
    counts: np.ndarray, begins: np.ndarray, totals: np.ndarray, starts: np.ndarray, *, length: int, leads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts and places of windows, as ``gather_windows`` takes them, of the types that it works with.

    Raises:
        ValueError: a window does not lie inside its recording, or a recording not inside ``counts``.
    """
    counts = np.asarray(counts)
    begins, totals, starts = (np.ascontiguousarray(each, dtype=np.int64) for each in (begins, totals, starts))
    if counts.dtype != np.int16 or counts.ndim != 1 or not len(begins) == len(totals) == len(starts):
        raise ValueError("counts are flat int16, and every window has a begin, a total and a start")
    size = len(counts)
    inside = (begins >= 0) & (starts >= 0) & (starts <= totals - length)
    inside &= (begins <= size) & (totals <= (size - begins) // leads)  # a product could overflow
    if not inside.all():
        raise ValueError("a window does not lie inside its recording")
    return counts, begins, totals, starts
