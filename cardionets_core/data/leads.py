"""Twelve leads by name, what the limb leads must obey, and what betrays swapped ones (step 2 of the walk).

Comes in: a reader's ECG, or filtered leads in the order of ``LEADS``. Goes out: leads in that order, and
measures of doubt; whether a recording is refused for them is decided in ``quality``.

Einthoven and Goldberger: all six limb leads are combinations of I and II. Channels under each other's names
break these identities; electrodes on the wrong limbs do not, and only the shape of the waves tells of them.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.data.signal import TARGET_RATE_HZ
from cardionets_core.errors import RecordRefused

SEGMENT_SECONDS = 2.0
ARM_REVERSAL_CORRELATION = -0.3
"""Correlation of I with V6 under which the arm electrodes may be swapped: both look at the left wall, and a
swap turns I over. The open recordings lie between 0.02 and 0.98; a right axis or dextrocardia can do the
same, so that this is a doubt and no fault."""

LIMB_OF_I_AND_II = {"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0), "aVR": (-0.5, -0.5),
                    "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}  # fmt: skip


def order_leads(record: EcgRecord) -> tuple[np.ndarray, int]:
    """Float64 [12, T] in the order of ``LEADS``, and how many limb leads were derived.

    A missing limb lead follows from any two present ones. A missing precordial lead follows from nothing.

    Raises:
        RecordRefused: ``ecg-lead-missing``.
    """
    row_of: dict[str, int] = {}
    for row, name in enumerate(record.leads):
        row_of.setdefault(canonical_lead(name), row)
    present = [lead for lead in LIMB_OF_I_AND_II if lead in row_of]
    missing = [lead for lead in LEADS if lead not in row_of]
    if len(present) < 2 or any(lead not in LIMB_OF_I_AND_II for lead in missing):
        raise RecordRefused("ecg-lead-missing", f"{len(missing)} of 12 leads are absent")
    ordered = np.empty((len(LEADS), record.signal_mv.shape[1]), dtype=np.float64)
    for place, lead in enumerate(LEADS):
        if lead in row_of:
            ordered[place] = record.signal_mv[row_of[lead]]
    if missing:
        first, second = present[:2]
        inverse = np.linalg.inv(np.array([LIMB_OF_I_AND_II[first], LIMB_OF_I_AND_II[second]]))
        for lead in missing:
            share = np.array(LIMB_OF_I_AND_II[lead]) @ inverse
            one, two = ordered[LEADS.index(first)], ordered[LEADS.index(second)]
            with np.errstate(invalid="ignore"):  # infinite means missing, and is mended later
                ordered[LEADS.index(lead)] = share[0] * one + share[1] * two
    return ordered, len(missing)


def swap_residual(signal_mv: np.ndarray, *, usable: np.ndarray) -> float:
    """Relative residual of III = II - I, aVR = -(I + II)/2, aVL = I - II/2 and aVF = II - I/2.

    Args:
        signal_mv: [12, T] at 250 Hz, filtered, T at least one segment.
        usable: bool [12]; identities with a flat lead are left out.

    Returns:
        Median over 2 s segments of the root of the summed squares of the residuals over those of the tested
        leads; 0 where none can be tested. An artefact in one lead moves one segment, a swap moves all.
    """
    tested = [row for row in range(2, 6) if usable[[0, 1, row]].all()]
    if not tested:
        return 0.0
    limbs = segments(signal_mv[:6])
    shares = np.array([LIMB_OF_I_AND_II[LEADS[row]] for row in tested])
    wrong = limbs[tested] - shares[:, :1, None] * limbs[0] - shares[:, 1:, None] * limbs[1]
    total = np.einsum("lst,lst->s", limbs[tested], limbs[tested])
    left = np.einsum("lst,lst->s", wrong, wrong)
    return float(np.median(np.sqrt(np.divide(left, total, out=np.zeros_like(left), where=total > 0))))


def has_turned_arms(signal_mv: np.ndarray, *, usable: np.ndarray) -> bool:
    """Whether lead I is V6 upside down, as after a swap of the arm electrodes; False where one is flat.

    Args:
        signal_mv: [12, T] at 250 Hz, filtered.
        usable: bool [12].
    """
    one, six = signal_mv[LEADS.index("I")], signal_mv[LEADS.index("V6")]
    if not (usable[LEADS.index("I")] and usable[LEADS.index("V6")]):
        return False
    both = np.stack([one, six])
    products = np.einsum("it,jt->ij", both, both)  # the filter has taken the mean away
    return bool(products[0, 1] < ARM_REVERSAL_CORRELATION * np.sqrt(products[0, 0] * products[1, 1]))


def segments(signal_mv: np.ndarray) -> np.ndarray:
    """[L, S, 500]: whole segments of 2 s of [L, T] at 250 Hz."""
    length = int(SEGMENT_SECONDS * TARGET_RATE_HZ)
    count = signal_mv.shape[1] // length
    return signal_mv[:, : count * length].reshape(len(signal_mv), count, length)
