"""Windows as the earlier generation of the method takes them: an ECG as an image (between steps 4 and 5).

Comes in: packed recordings as they are kept, at 250 Hz and between 0.67 and 40 Hz, and where the windows
start. Goes out: windows at 500 Hz, each lead within [-1, 1], flipped at random in training. The random crop
of that method is the random start, which the caller draws.

Legend: B windows, L leads, T samples at 250 Hz.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, rfft

from cardionets_core.data.windows import checked_places

RATE_FACTOR = 2
FLIP_SHARE = 0.33


def gather_image_windows(
    counts: np.ndarray,
    begins: np.ndarray,
    totals: np.ndarray,
    starts: np.ndarray,
    *,
    length: int,
    leads: int,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """One window of each of some packed recordings, at twice their rate.

    Each recording is brought to 500 Hz whole, so that no window has edges of its own, and is cut then. Each
    lead of a window is scaled by its own least and largest value. A lead is flat, and becomes zeros, if all
    its counts in the window are the same; any other spans a count or more at 500 Hz too, since every other
    sample there is one of the kept ones.

    Args:
        counts: int16, flat, a memory map for one; recording b is ``[leads, totals[b]]`` from ``begins[b]``
            on.
        begins: int64 [B], places in ``counts``.
        totals: int64 [B], samples a lead.
        starts: int64 [B], first sample of each window at 250 Hz.
        length: samples of a window at 250 Hz.
        leads: of every recording.
        generator: flips windows in time, and independently in sign, each with probability ``FLIP_SHARE`` and
            all leads of a window alike (training); without it nothing is flipped.

    Returns:
        Float32 [B, leads, 2 * length], each lead from -1 to 1 whatever the volts a count.

    Raises:
        ValueError: a window does not lie inside its recording, or a recording not inside ``counts``.
    """
    counts, begins, totals, starts = checked_places(
        counts, begins, totals, starts, length=length, leads=leads
    )
    windows = np.empty((len(begins), leads, RATE_FACTOR * length), dtype=np.float32)
    for window, begin, total, start in zip(windows, begins, totals, starts, strict=True):
        kept_LT = counts[begin : begin + leads * total].reshape(leads, total)
        seen_LT = kept_LT[:, start : start + length]
        flat_L = seen_LT.min(axis=1) == seen_LT.max(axis=1)
        first = RATE_FACTOR * start
        window[:] = scale_leads(at_500_hz(kept_LT)[:, first : first + RATE_FACTOR * length], flat=flat_L)
    if generator is not None:
        in_time_B, in_sign_B = generator.random((len(windows), 2)).T < FLIP_SHARE
        windows[in_time_B] = windows[in_time_B, :, ::-1]
        windows[in_sign_B] *= -1.0
    return windows


def at_500_hz(counts_LT: np.ndarray) -> np.ndarray:
    """A whole recording at twice its rate by the FFT method, as ``scipy.signal.resample``.

    Args:
        counts_LT: [L, T].

    Returns:
        Float32 [L, 2 T]; sample 2 t is sample t of the recording.
    """
    samples = counts_LT.shape[1]
    spectrum = rfft(counts_LT.astype(np.float32), axis=1)
    if samples % 2 == 0:
        # The bin at the old Nyquist frequency stood for two, which part.
        spectrum[:, -1] *= 0.5
    return irfft(spectrum, RATE_FACTOR * samples, axis=1, overwrite_x=True) * np.float32(RATE_FACTOR)


def scale_leads(window_LT: np.ndarray, *, flat: np.ndarray) -> np.ndarray:
    """Each lead from -1, its least value, to 1, its largest.

    Args:
        window_LT: float32.
        flat: bool [L], leads that become zeros.
    """
    least = window_LT.min(axis=1, keepdims=True)
    span = window_LT.max(axis=1, keepdims=True) - least
    span[flat] = 1.0
    scaled = (window_LT - least) / span * np.float32(2.0) - np.float32(1.0)
    scaled[flat] = 0.0
    return scaled
