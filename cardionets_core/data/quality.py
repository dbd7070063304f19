"""From a reader's ECG to the twelve filtered leads, or a refusal (SCIENCE section 3, ECG steps 2 to 5).

Step 2 of the walk. The order is fixed: leads by name, missing samples, length and flatness, resampling,
filter, then amplitude and the limb-lead identities, which are judged on the filtered signal so that drift
and offset do not count. A doubt that does not stop a recording becomes a flag, and flags are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.data.signal import MINIMUM_RATE_HZ, TARGET_RATE_HZ, filter_ecg, resample_ecg
from cardionets_core.errors import RecordRefused

MINIMUM_SECONDS = 5.0
MAXIMUM_SECONDS = 600.0
MAXIMUM_NAN_SHARE = 0.2
REFUSED_NAN_LEADS = 7
REFUSED_FLAT_LEADS = 6
FLAT_MV = 0.001
"""Peak to peak under which a lead is flat: below one count of every recorder of FORMATS section 5."""
AMPLITUDE_MV = (0.1, 10.0)
"""Bounds of the median peak to peak; true ones lie between 0.3 and 5 mV (FORMATS section 5)."""
SEGMENT_SECONDS = 2.0
SWAP_FLAGGED = 0.05
SWAP_REFUSED = 0.5
"""Relative residual of the limb-lead identities. The open recordings stay under 0.01; any two limb channels
under each other's names give more than 0.08, and in nine cases of ten more than 0.5. Between the two bounds a
recording may be noisy or mislabelled: it is kept and flagged."""

LIMB_OF_I_AND_II = {"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0), "aVR": (-0.5, -0.5),
                    "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedEcg:
    """A recording that may be packed.

    Attributes:
        signal_mv: float64 [12, T] at 250 Hz, filtered, finite, in the order of ``LEADS``.
        flags: any of ``lead-derived``, ``nan-filled``, ``nan-lead``, ``flat-lead``, ``lead-swap``.
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
            ``ecg-nan``, ``ecg-flat``, ``ecg-amplitude`` or ``ecg-lead-swap``.
    """
    if not np.isfinite(record.fs_hz) or record.fs_hz < MINIMUM_RATE_HZ:
        raise RecordRefused("ecg-rate-too-low", f"{record.fs_hz} Hz")
    samples = record.signal_mv.shape[1]
    if samples < MINIMUM_SECONDS * record.fs_hz:
        raise RecordRefused("ecg-too-short", f"{samples} samples at {record.fs_hz} Hz")
    if samples > MAXIMUM_SECONDS * record.fs_hz:
        raise RecordRefused("ecg-too-large", f"longer than {MAXIMUM_SECONDS:.0f} s: not a resting ECG")
    ordered, derived = order_leads(record)
    repair = mend_missing(ordered)
    mended = repair.signal_mv
    if repair.lost >= REFUSED_NAN_LEADS:
        raise RecordRefused("ecg-nan", f"{repair.lost} leads are mostly missing")
    with np.errstate(over="ignore", invalid="ignore"):
        flat = ~(np.ptp(mended, axis=1) >= FLAT_MV)
    if int(flat.sum()) >= REFUSED_FLAT_LEADS:
        raise RecordRefused("ecg-flat", f"{int(flat.sum())} leads are flat")
    if np.abs(mended).max() > 1e6:  # far from any unit of an ECG; squares of it would overflow
        raise RecordRefused("ecg-amplitude", "a sample is over a kilovolt")
    mended[flat] = 0.0
    filtered = filter_ecg(resample_ecg(mended, record.fs_hz))
    filtered[flat] = 0.0
    amplitude_mv = median_amplitude_mv(filtered[~flat])
    if not AMPLITUDE_MV[0] <= amplitude_mv <= AMPLITUDE_MV[1]:
        raise RecordRefused("ecg-amplitude", f"median peak to peak {amplitude_mv:.3g} mV")
    residual = swap_residual(filtered, usable=~flat)
    if residual > SWAP_REFUSED:
        raise RecordRefused("ecg-lead-swap", f"relative residual {residual:.2f}")
    conditions = {"lead-derived": derived > 0, "nan-filled": repair.filled > 0, "nan-lead": repair.lost > 0,
                  "flat-lead": bool(flat.any()), "lead-swap": residual > SWAP_FLAGGED}  # fmt: skip
    flags = frozenset(name for name, holds in conditions.items() if holds)
    facts = {"fs_hz": record.fs_hz, "duration_s": samples / record.fs_hz,
             "amplitude_mv": amplitude_mv, "swap_residual": residual}  # fmt: skip
    return CheckedEcg(signal_mv=filtered, flags=flags | record.flags, swap_residual=residual, facts=facts)


def order_leads(record: EcgRecord) -> tuple[np.ndarray, int]:
    """Float64 [12, T] in the order of ``LEADS``, and how many limb leads were derived.

    A missing limb lead follows from any two present ones (Einthoven, Goldberger): all six are combinations of
    I and II. A missing precordial lead follows from nothing.

    Raises:
        RecordRefused: ``ecg-lead-missing``.
    """
    rows: dict[str, np.ndarray] = {}
    for name, row in zip(record.leads, record.signal_mv, strict=True):
        rows.setdefault(canonical_lead(name), row.astype(np.float64))
    present = [lead for lead in LIMB_OF_I_AND_II if lead in rows]
    missing = [lead for lead in LEADS if lead not in rows]
    if len(present) < 2 or any(lead not in LIMB_OF_I_AND_II for lead in missing):
        raise RecordRefused("ecg-lead-missing", f"{len(missing)} of 12 leads are absent")
    if missing:
        first, second = present[:2]
        inverse = np.linalg.inv(np.array([LIMB_OF_I_AND_II[first], LIMB_OF_I_AND_II[second]]))
        for lead in missing:
            share = np.array(LIMB_OF_I_AND_II[lead]) @ inverse
            rows[lead] = share[0] * rows[first] + share[1] * rows[second]
    return np.stack([rows[lead] for lead in LEADS]), len(missing)


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


def median_amplitude_mv(signal_mv: np.ndarray) -> float:
    """Median over leads of the median over 2 s segments of the peak-to-peak value: a spike does not move it.

    Args:
        signal_mv: [L, T] at 250 Hz, L at least 1, T at least one segment.
    """
    return float(np.median(np.median(np.ptp(_segments(signal_mv), axis=2), axis=1)))


def swap_residual(signal_mv: np.ndarray, *, usable: np.ndarray) -> float:
    """Relative residual of III = II - I, aVR = -(I + II)/2, aVL = I - II/2 and aVF = II - I/2.

    Args:
        signal_mv: [12, T] at 250 Hz, filtered, T at least one segment.
        usable: bool [12]; identities with a flat lead are left out.

    Returns:
        Median over 2 s segments of the root of the summed squares of the residuals over those of the tested
        leads; 0 where none can be tested. An artefact in one lead moves one segment, a swap moves all.
    """
    segments = _segments(signal_mv)
    lead_i, lead_ii = segments[0], segments[1]
    wrong, total = np.zeros(segments.shape[1]), np.zeros(segments.shape[1])
    for lead, (share_i, share_ii) in LIMB_OF_I_AND_II.items():
        row = LEADS.index(lead)
        if row > 1 and usable[[0, 1, row]].all():
            wrong += np.sum((segments[row] - share_i * lead_i - share_ii * lead_ii) ** 2, axis=1)
            total += np.sum(segments[row] ** 2, axis=1)
    return float(np.median(np.sqrt(np.divide(wrong, total, out=np.zeros_like(wrong), where=total > 0))))


def _segments(signal_mv: np.ndarray) -> np.ndarray:
    """[L, S, 500]: whole segments of 2 s."""
    length = int(SEGMENT_SECONDS * TARGET_RATE_HZ)
    count = signal_mv.shape[1] // length
    return signal_mv[:, : count * length].reshape(len(signal_mv), count, length)
