"""Where a window starts in a recording, and how it is standardised (SCIENCE section 3, ECG steps 6 and 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EVALUATION_WINDOWS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """What a preset's encoders take.

    Attributes:
        ecg_samples: samples of a window at 250 Hz.
        cine_frames: frames of a cine.
        cine_pixels: rows and columns of a cine.
    """

    ecg_samples: int
    cine_frames: int
    cine_pixels: int


def evaluation_starts(samples: int, length: int) -> tuple[int, ...]:
    """Starts of the evaluation windows: first, middle, last, without repeats.

    Args:
        samples: length of the recording, at least ``length``.
        length: length of the window.
    """
    last = samples - length
    return tuple(sorted({0, last // 2, last}))


def standardise(window_LT: np.ndarray) -> np.ndarray:
    """Zero mean and unit SD jointly over leads and time; a constant window becomes zeros. Float32 [L, T]."""
    centred = window_LT.astype(np.float32) - np.float32(window_LT.mean(dtype=np.float64))
    deviation = float(np.sqrt(np.mean(np.square(centred, dtype=np.float64))))
    return centred / np.float32(deviation) if deviation > 1e-12 else np.zeros_like(centred)


def gather_windows(
    counts: np.ndarray, begins: np.ndarray, totals: np.ndarray, starts: np.ndarray, *, length: int, leads: int
) -> np.ndarray:
    """One standardised window of each of some packed recordings.

    Args:
        counts: int16, flat; recording b is ``[leads, totals[b]]`` from ``begins[b]`` on.
        begins: int64 [B], places in ``counts``.
        totals: int64 [B], samples a lead.
        starts: int64 [B], first sample of each window.
        length: samples of a window.
        leads: of every recording.

    Returns:
        Float32 [B, leads, length], each window of zero mean and unit SD, whatever the volts a count.
    """
    windows = np.empty((len(begins), leads, length), dtype=np.float32)
    for place, (begin, total, start) in enumerate(zip(begins, totals, starts, strict=True)):
        record = counts[begin : begin + leads * total].reshape(leads, total)
        windows[place] = standardise(record[:, start : start + length].astype(np.float32) * 0.001)
    return windows
