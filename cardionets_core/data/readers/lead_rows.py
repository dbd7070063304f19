"""From the numbers and leads that a file states to a record, checked (step 2 of the walk).

Comes in: texts of numbers, base64 text, and rows in mV under any spelling of their lead. Goes out: an
``EcgRecord``, or a refusal. Does not know any format, and does not judge what an ECG looks like.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import numpy as np

from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_RATE_HZ = 100_000.0


def finite_number(text: str | float, name: str) -> float:
    """A number of ordinary size.

    Raises:
        RecordRefused: ``ecg-unreadable``.
    """
    try:
        value = float(text)
    except ValueError:
        raise RecordRefused("ecg-unreadable", f"{name} is missing or not a number") from None
    if not abs(value) < 1e9:
        raise RecordRefused("ecg-unreadable", f"{name} is out of its range")
    return value


def positive_number(text: str | float, name: str, *, limit: float = 1e9) -> float:
    """A number between 0 and the limit, both excluded.

    Raises:
        RecordRefused: ``ecg-unreadable``.
    """
    value = finite_number(text, name)
    if not 0 < value < limit:
        raise RecordRefused("ecg-unreadable", f"{name} is out of its range")
    return value


def base64_bytes(text: str) -> bytes:
    """The bytes behind base64 text that may be broken into lines.

    Raises:
        RecordRefused: ``ecg-unreadable``.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordRefused("ecg-unreadable", "a waveform is not base64 text") from error


def record_of(leads: Iterable[tuple[str, np.ndarray]], *, rate_hz: float) -> EcgRecord:
    """A record of those leads that are of the twelve, in the order given; others are left out by name.

    Args:
        leads: (name in any known spelling, [T] in mV).
        rate_hz: samples per second.

    Raises:
        RecordRefused: ``ecg-wrong-structure`` (none of the twelve, or one twice), ``ecg-truncated`` (leads of
            different length, or empty), ``ecg-unreadable`` (a value that float32 cannot hold).
    """
    rows: dict[str, np.ndarray] = {}
    for name, row_mv in leads:
        lead = canonical_lead(name)
        if lead in rows:
            raise RecordRefused("ecg-wrong-structure", "a lead stands twice")
        if lead in LEADS:
            rows[lead] = row_mv
    if not rows:
        raise RecordRefused("ecg-wrong-structure", "none of the twelve leads is there")
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise RecordRefused("ecg-truncated", "the leads are empty or of different length")
    with np.errstate(over="ignore"):
        signal_mv = np.stack(list(rows.values())).astype(np.float32)
    if np.isinf(signal_mv).any():
        raise RecordRefused("ecg-unreadable", "a sample is too large for any unit")
    return EcgRecord(signal_mv=signal_mv, fs_hz=rate_hz, leads=tuple(rows))
