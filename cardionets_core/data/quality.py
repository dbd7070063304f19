"""From a reader's ECG to the twelve filtered leads, or a refusal (SCIENCE section 3, ECG steps 2 to 5).

Step 2 of the walk. The order is fixed: leads by name, padding, length, missing samples, flatness and
saturation, which are judged on what the recorder wrote; resampling and filter; then amplitude and the
limb-lead identities, which are judged on the filtered signal so that drift and offset do not count. Each
fault has one reason: it is repaired by a rule and becomes a flag, or the recording is refused. A doubt that
does not stop a recording is a flag too, and flags are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardionets_core.data.amplitude import (
    AMPLITUDE_MV,
    CLIPPED_FLAGGED,
    SATURATED_REFUSED,
    known_gain_error,
    median_amplitude_mv,
    share_at_extremes,
)
from cardionets_core.data.leads import has_turned_arms, order_leads, swap_residual
from cardionets_core.data.records import EcgRecord
from cardionets_core.data.signal import MINIMUM_RATE_HZ, filter_ecg, resample_ecg
from cardionets_core.errors import RecordRefused

MINIMUM_SECONDS = 5.0
MAXIMUM_SECONDS = 600.0
PADDING_SECONDS = 0.2
"""Of zeros in all leads at one end, from which on they are padding and are cut off."""
MAXIMUM_NAN_SHARE = 0.2
REFUSED_NAN_LEADS = 7
REFUSED_FLAT_LEADS = 6
FLAT_MV = 0.001
"""Peak to peak under which a lead is flat: below one count of every recorder of FORMATS section 5."""
MINIMUM_LEVELS = 20
"""Different values of a lead under which it is the noise of its last bits, not a faint heart."""
SWAP_FLAGGED = 0.05
SWAP_REFUSED = 0.5
"""Relative residual of the limb-lead identities. The open recordings stay under 0.03; any two limb channels
under each other's names give more than 0.08, and in nine cases of ten more than 0.5. Between the two bounds a
recording may be noisy or mislabelled: it is kept and flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedEcg:
    """A recording that may be packed.

    Attributes:
        signal_mv: float64 [12, T] at 250 Hz, filtered, finite, in the order of ``LEADS``.
        flags: what was repaired (``lead-derived``, ``padding-cropped``, ``nan-filled``, ``nan-lead``,
            ``flat-lead``), what is in doubt (``clipped``, ``lead-swap``, ``arm-reversal``), and the reader's.
        swap_residual: relative residual of the limb-lead identities; 0 where none can be tested.
        facts: name to number for the report: fs_hz, duration_s, amplitude_mv, swap_residual.
    """

    signal_mv: np.ndarray
    flags: frozenset[str]
    swap_residual: float
    facts: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """A signal without missing samples.

    Attributes:
        signal_mv: finite float64 [L, T].
        filled: leads that were interpolated.
        lost: leads that were set to zero.
    """

    signal_mv: np.ndarray
    filled: int
    lost: int


def check_ecg(record: EcgRecord) -> CheckedEcg:
    """Order, mend, resample, filter and judge one recording.

    Raises:
        RecordRefused: ``ecg-lead-missing``, ``ecg-rate-too-low``, ``ecg-too-short``, ``ecg-too-large``,
            ``ecg-nan``, ``ecg-flat``, ``ecg-saturated``, ``ecg-gain``, ``ecg-amplitude`` or
            ``ecg-lead-swap``.
    """
    if not np.isfinite(record.fs_hz) or record.fs_hz < MINIMUM_RATE_HZ:
        raise RecordRefused("ecg-rate-too-low", f"{record.fs_hz} Hz")
    _check_length(record.signal_mv.shape[1], record.fs_hz)
    ordered, derived = order_leads(record)
    cropped = crop_padding(ordered, record.fs_hz)
    _check_length(cropped.shape[1], record.fs_hz)
    at_extremes = share_at_extremes(cropped, record.fs_hz)
    repair = mend_missing(cropped)
    mended = repair.signal_mv
    if repair.lost >= REFUSED_NAN_LEADS:
        raise RecordRefused("ecg-nan", f"{repair.lost} leads are mostly missing")
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = mended.min(axis=1), mended.max(axis=1)
        span = high - low
        flat = ~(span >= FLAT_MV)
    if int(flat.sum()) >= REFUSED_FLAT_LEADS:
        _refuse_wrong_gain(float(span.max()), mended)
        raise RecordRefused("ecg-flat", f"{int(flat.sum())} leads are flat")
    if at_extremes >= SATURATED_REFUSED:
        raise RecordRefused("ecg-saturated", f"a lead stands at its limit for {at_extremes:.0%} of the time")
    if max(high.max(), -low.min()) > 1e6:  # far from any unit of an ECG; squares of it would overflow
        raise RecordRefused("ecg-amplitude", "a sample is over a kilovolt")
    mended[flat] = 0.0
    filtered = filter_ecg(resample_ecg(mended, record.fs_hz))
    filtered[flat] = 0.0
    amplitude_mv = median_amplitude_mv(filtered[~flat] if flat.any() else filtered)
    if not AMPLITUDE_MV[0] <= amplitude_mv <= AMPLITUDE_MV[1]:
        _refuse_wrong_gain(amplitude_mv, mended)
        raise RecordRefused("ecg-amplitude", f"median peak to peak {amplitude_mv:.3g} mV")
    residual = swap_residual(filtered, usable=~flat)
    if residual > SWAP_REFUSED:
        raise RecordRefused("ecg-lead-swap", f"relative residual {residual:.2f}")
    conditions = {
        "lead-derived": derived > 0,
        "padding-cropped": cropped.shape != ordered.shape,
        "nan-filled": repair.filled > 0,
        "nan-lead": repair.lost > 0,
        "flat-lead": bool(flat.any()),
        "clipped": at_extremes >= CLIPPED_FLAGGED,
        "lead-swap": residual > SWAP_FLAGGED,
        "arm-reversal": has_turned_arms(filtered, usable=~flat),
    }
    flags = frozenset(name for name, holds in conditions.items() if holds)
    facts = {"fs_hz": float(record.fs_hz), "duration_s": cropped.shape[1] / record.fs_hz,
             "amplitude_mv": amplitude_mv, "swap_residual": residual}  # fmt: skip
    return CheckedEcg(signal_mv=filtered, flags=flags | record.flags, swap_residual=residual, facts=facts)


def _check_length(samples: int, fs_hz: float) -> None:
    if samples < MINIMUM_SECONDS * fs_hz:
        raise RecordRefused("ecg-too-short", f"{samples} samples at {fs_hz} Hz")
    if samples > MAXIMUM_SECONDS * fs_hz:
        raise RecordRefused("ecg-too-large", f"longer than {MAXIMUM_SECONDS:.0f} s: not a resting ECG")


def _refuse_wrong_gain(amplitude_mv: float, signal_mv: np.ndarray) -> None:
    """Refuse where a known error explains the amplitude of what is more than a recorder's last bits."""
    error = known_gain_error(amplitude_mv)
    if error and np.median([len(np.unique(row)) for row in signal_mv]) >= MINIMUM_LEVELS:
        raise RecordRefused("ecg-gain", f"peak to peak {amplitude_mv:.3g} mV: {error}")


def crop_padding(signal_mv: np.ndarray, fs_hz: float) -> np.ndarray:
    """Cut off zeros that all leads share at either end, where they last ``PADDING_SECONDS``.

    Args:
        signal_mv: [L, T]; comes back as it is where it holds nothing but zeros.
        fs_hz: samples per second.
    """
    if signal_mv[:, [0, -1]].any(axis=0).all():
        return signal_mv
    busy = np.flatnonzero((signal_mv != 0.0).any(axis=0))
    samples = signal_mv.shape[1]
    if len(busy) == 0:
        return signal_mv
    least = PADDING_SECONDS * fs_hz
    start = int(busy[0]) if busy[0] >= least else 0
    stop = int(busy[-1]) + 1 if samples - 1 - busy[-1] >= least else samples
    return signal_mv[:, start:stop]


def mend_missing(signal_mv: np.ndarray) -> Mended:
    """Interpolate missing samples inside a lead; zero a lead that misses more than a fifth.

    Args:
        signal_mv: [L, T] with NaN or infinities where missing.
    """
    mended = np.array(signal_mv, dtype=np.float64)
    missing = ~np.isfinite(mended)
    filled = lost = 0
    for row in np.flatnonzero(missing.any(axis=1)):
        gaps = missing[row]
        if gaps.mean() > MAXIMUM_NAN_SHARE:
            mended[row] = 0.0
            lost += 1
        else:
            places = np.arange(len(gaps))
            mended[row, gaps] = np.interp(places[gaps], places[~gaps], mended[row, ~gaps])
            filled += 1
    return Mended(signal_mv=mended, filled=filled, lost=lost)
