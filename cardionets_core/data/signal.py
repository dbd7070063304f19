"""ECG resampling and filtering (SCIENCE section 3, ECG steps 4 and 5).

Comes in: [L, T] in mV without NaN. Goes out: the same recording at 250 Hz between 0.67 and 40 Hz. Does not
judge or crop: the whole recording is filtered before any window is cut.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import irfft, rfft
from scipy.signal import butter, sosfilt_zi

TARGET_RATE_HZ = 250.0
MINIMUM_RATE_HZ = 100.0
HIGH_PASS_HZ = 0.67
LOW_PASS_HZ = 40.0
ORDER = 5
EDGE_SAMPLES = 18
"""By which the filter extends a recording on each side: three times its taps, scipy's default."""
MINIMUM_FILTER_SAMPLES = EDGE_SAMPLES + 1


def resample_ecg(signal_mv: np.ndarray, fs_hz: float) -> np.ndarray:
    """Resample to 250 Hz by the FFT method, as ``scipy.signal.resample``.

    Args:
        signal_mv: [L, T], finite.
        fs_hz: present rate, at least ``MINIMUM_RATE_HZ``.

    Returns:
        Float64 [L, int(T * 250 / fs_hz)].
    """
    if fs_hz < MINIMUM_RATE_HZ:
        raise ValueError(f"{fs_hz} Hz cannot carry the pass band: at least {MINIMUM_RATE_HZ} Hz are needed")
    signal_mv = np.asarray(signal_mv, dtype=np.float64)
    if fs_hz == TARGET_RATE_HZ:
        return signal_mv
    before = signal_mv.shape[1]
    after = int(before * TARGET_RATE_HZ / fs_hz)
    shared = min(before, after)
    spectrum = rfft(signal_mv, axis=1)[:, : shared // 2 + 1]
    if shared % 2 == 0 and after != before:
        # The bin at the lower Nyquist frequency stands for two: they join going down, part going up.
        spectrum[:, -1] *= 2.0 if after < before else 0.5
    return irfft(spectrum, after, axis=1, overwrite_x=True) * (after / before)


def filter_ecg(signal_mv: np.ndarray) -> np.ndarray:
    """Butterworth of order 5, forwards and backwards: high-pass at 0.67 Hz, then low-pass at 40 Hz.

    Args:
        signal_mv: [L, T] at 250 Hz, finite, at least ``MINIMUM_FILTER_SAMPLES`` long.

    Returns:
        Float64 [L, T], without phase shift; equal to two calls of ``scipy.signal.sosfiltfilt``.
    """
    from cardionets_core.data.kernels import filter_both_ways  # numba, only where a recording is filtered

    if signal_mv.shape[1] < MINIMUM_FILTER_SAMPLES:
        raise ValueError(f"the filter needs at least {MINIMUM_FILTER_SAMPLES} samples")
    sections, rest = _filters()
    signal_mv = np.ascontiguousarray(signal_mv, dtype=np.float64)
    filtered = np.empty_like(signal_mv)
    filter_both_ways(signal_mv, sections, rest, EDGE_SAMPLES, filtered)
    return filtered


def filter_sections() -> tuple[np.ndarray, np.ndarray]:
    """Second-order sections of the high-pass and of the low-pass, float64 [3, 6] each."""
    high_pass = butter(ORDER, HIGH_PASS_HZ, btype="highpass", fs=TARGET_RATE_HZ, output="sos")
    low_pass = butter(ORDER, LOW_PASS_HZ, btype="lowpass", fs=TARGET_RATE_HZ, output="sos")
    return high_pass, low_pass


@lru_cache(maxsize=1)
def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Sections [2, 3, 6] of high-pass and low-pass, and their states of rest [2, 3, 2]."""
    high_pass, low_pass = filter_sections()
    return np.stack([high_pass, low_pass]), np.stack([sosfilt_zi(high_pass), sosfilt_zi(low_pass)])
