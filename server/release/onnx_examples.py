"""Synthetic ECGs on which exported graphs are tried: of no person, and the same on every machine.

Comes in: the length of a window. Goes out: windows that went the way of any recording: filtered, packed and
standardised by the library's own functions.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.data.leads import LIMB_OF_I_AND_II
from cardionets_core.data.pack import ECG_COUNTS_PER_MV
from cardionets_core.data.records import LEADS
from cardionets_core.data.signal import TARGET_RATE_HZ, filter_ecg
from cardionets_core.data.window_kinds import windows_of
from cardionets_core.data.windows import InputShape, evaluation_starts

RATES_PER_MINUTE = (48.0, 75.0, 120.0)
SECONDS = 10.0
_WAVES = ((-0.20, 0.025, 0.12), (-0.025, 0.008, -0.1), (0.0, 0.010, 1.0), (0.03, 0.010, -0.2),
          (0.26, 0.045, 0.28))  # fmt: skip
"""P, Q, R, S, T: seconds from R, SD in seconds, mV."""


def synthetic_windows(shape: InputShape) -> np.ndarray:
    """Evaluation windows of three sinus rhythms as a preset takes them, float32 ``[B, 12, T]``."""
    samples = shape.ecg_samples
    seconds = max(SECONDS, samples / TARGET_RATE_HZ)
    parts = []
    for rate in RATES_PER_MINUTE:
        counts = np.rint(filter_ecg(_ecg_mv(rate, seconds)) * ECG_COUNTS_PER_MV).astype(np.int16)
        starts = np.array(evaluation_starts(counts.shape[1], samples), dtype=np.int64)
        begins, totals = np.zeros_like(starts), np.full_like(starts, counts.shape[1])
        flat = counts.reshape(-1)
        parts.append(windows_of(shape, flat, begins, totals, starts))
    return np.concatenate(parts)


def _ecg_mv(rate: float, seconds: float) -> np.ndarray:
    """Float64 [12, T]: limb leads by the identities, chest leads that grow and turn over."""
    time_s = np.arange(int(seconds * TARGET_RATE_HZ)) / TARGET_RATE_HZ
    interval_s = 60.0 / rate
    phase_s = (time_s + interval_s / 2) % interval_s - interval_s / 2
    wave = [mv * np.exp(-0.5 * ((phase_s - at) / width) ** 2) for at, width, mv in _WAVES]
    one, two = 0.7 * np.sum(wave, axis=0), np.sum(wave, axis=0) + 0.05 * np.sin(2 * np.pi * 0.3 * time_s)
    rows = {lead: first * one + second * two for lead, (first, second) in LIMB_OF_I_AND_II.items()}
    for place, lead in enumerate(lead for lead in LEADS if lead not in rows):
        turned = -0.8 + 0.36 * place  # V1 looks at the heart from the right, V6 from the left
        rows[lead] = wave[0] + turned * (wave[1] + wave[2] + wave[3]) + wave[4]
    return np.stack([rows[lead] for lead in LEADS])
