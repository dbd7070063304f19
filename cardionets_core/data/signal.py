"""ECG resampling and filtering (SCIENCE section 3, ECG steps 4 and 5).

Comes in: [L, T] in mV without NaN. Goes out: the same recording at 250 Hz between 0.67 and 40 Hz. Does not
judge or crop: the whole recording is filtered before any window is cut.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal import butter, resample, sosfiltfilt

TARGET_RATE_HZ = 250.0
MINIMUM_RATE_HZ = 100.0
HIGH_PASS_HZ = 0.67
LOW_PASS_HZ = 40.0
ORDER = 5
MINIMUM_FILTER_SAMPLES = 19


def resample_ecg(signal_mv: np.ndarray, fs_hz: float) -> np.ndarray:
    """Resample to 250 Hz by the FFT method.

    Args:
        signal_mv: [L, T], finite.
        fs_hz: present rate, at least ``MINIMUM_RATE_HZ``.

    Returns:
        Float64 [L, int(T * 250 / fs_hz)].
    """
    if fs_hz < MINIMUM_RATE_HZ:
        raise ValueError(f"{fs_hz} Hz cannot carry the pass band: at least {MINIMUM_RATE_HZ} Hz are needed")
    if fs_hz == TARGET_RATE_HZ:
        return np.asarray(signal_mv, dtype=np.float64)
    samples = int(signal_mv.shape[1] * TARGET_RATE_HZ / fs_hz)
    return resample(np.asarray(signal_mv, dtype=np.float64), samples, axis=1)


def filter_ecg(signal_mv: np.ndarray) -> np.ndarray:
    """Butterworth of order 5, forwards and backwards: high-pass at 0.67 Hz, then low-pass at 40 Hz.

    Args:
        signal_mv: [L, T] at 250 Hz, finite, at least ``MINIMUM_FILTER_SAMPLES`` long.

    Returns:
        Float64 [L, T], without phase shift.
    """
    if signal_mv.shape[1] < MINIMUM_FILTER_SAMPLES:
        raise ValueError(f"the filter needs at least {MINIMUM_FILTER_SAMPLES} samples")
    high_pass, low_pass = _sections()
    return sosfiltfilt(low_pass, sosfiltfilt(high_pass, signal_mv, axis=1), axis=1)


@lru_cache(maxsize=1)
def _sections() -> tuple[np.ndarray, np.ndarray]:
    high_pass = butter(ORDER, HIGH_PASS_HZ, btype="highpass", fs=TARGET_RATE_HZ, output="sos")
    low_pass = butter(ORDER, LOW_PASS_HZ, btype="lowpass", fs=TARGET_RATE_HZ, output="sos")
    return high_pass, low_pass
