"""Rules of files that hold an array and name nothing (step 2 of the walk; FORMATS section 5).

Comes in: an array and what the site's document declares of it. Goes out: a record. HDF5, NPY and MATLAB
readers bring the array; CSV files share the units. Whether the declared order of leads is true is judged
later, by the limb-lead identities.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 24_000_000
"""Of one array: twelve leads of float32 at 500 Hz for 16 minutes."""
MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "V": 1e3}
MINIMUM_PADDING = 5
"""Fewer zero samples in a row at an end may be true ones."""
PADDING_TRIMMED = "padding-trimmed"


def bare_record(array: np.ndarray, options: ReadOptions) -> EcgRecord:
    """A record of an array, with rate, unit and leads from the site's document.

    Args:
        array: [L, T] or [T, L] of real numbers; a first axis of length 1 is dropped.
        options: ``rate_hz`` and ``unit`` are needed; ``leads`` is the standard order where it is not declared
            and there are twelve.

    Returns:
        The leads as declared. Samples at both ends in which every lead is exactly zero are cut off (the
        padding of CODE-15) and flagged ``padding-trimmed``; a record of nothing but zeros stays whole.

    Raises:
        RecordRefused: ``ecg-undeclared``, ``ecg-wrong-structure`` (shape or type; several recordings in one
            file) or ``ecg-too-large``.
    """
    check_shape(array.shape, array.dtype)
    rate_hz, scale = declared(options)
    leads = tuple(canonical_lead(lead) for lead in options.leads) if options.leads else LEADS
    rows: np.ndarray = array[0] if array.ndim == 3 else array
    if (rows.shape[0] == len(leads)) == (rows.shape[1] == len(leads)):
        if options.leads is None:
            raise RecordRefused("ecg-undeclared", "the array has not twelve leads: declare leads")
        raise RecordRefused("ecg-wrong-structure", f"an array of {rows.shape} for {len(leads)} leads")
    if rows.shape[1] == len(leads):
        rows = rows.T
    with np.errstate(over="ignore"):
        values = rows if scale == 1.0 else rows.astype(np.float64) * scale
        signal_mv = values.astype(np.float32)
    first, last = _padding(signal_mv)
    trimmed = last - first < signal_mv.shape[1]
    return EcgRecord(
        signal_mv=np.ascontiguousarray(signal_mv[:, first:last]),
        fs_hz=rate_hz,
        leads=leads,
        flags=frozenset({PADDING_TRIMMED} if trimmed else ()),
    )


def check_shape(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse what cannot be one ECG, before its numbers are read.

    Raises:
        RecordRefused: ``ecg-wrong-structure`` or ``ecg-too-large``.
    """
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise RecordRefused("ecg-wrong-structure", "the array does not hold real numbers")
    if len(shape) == 3 and shape[0] > 1:
        raise RecordRefused(
            "ecg-wrong-structure",
            f"an array of {shape} holds {shape[0]} recordings: write each into a file of its own, [leads, n]",
        )
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise RecordRefused("ecg-wrong-structure", f"an array of {shape} is no ECG")
    if math.prod(shape) * max(dtype.itemsize, 4) > MAXIMUM_BYTES:
        raise RecordRefused("ecg-too-large", f"an array of {shape}")


def stored_array(
    content: bytes | memoryview,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    order: Literal["C", "F"],
    start: int = 0,
) -> np.ndarray:
    """The array that lies in some bytes, as a view of them.

    Args:
        content: of the file, or of a part of it.
        shape: as the file states it.
        dtype: as the file states it.
        order: ``C`` or ``F``, of the axes.
        start: byte at which the numbers begin.

    Raises:
        RecordRefused: see ``check_shape``; or ``ecg-truncated``.
    """
    check_shape(shape, dtype)
    count = math.prod(shape)
    if count * dtype.itemsize > len(content) - start:
        raise RecordRefused("ecg-truncated")
    return np.frombuffer(content, dtype=dtype, count=count, offset=start).reshape(shape, order=order)


def declared(options: ReadOptions) -> tuple[float, float]:
    """Samples per second and millivolts per unit, as the site's document declares them.

    Raises:
        RecordRefused: ``ecg-undeclared``.
    """
    if options.rate_hz is None or not 0 < options.rate_hz < 1e6:
        raise RecordRefused("ecg-undeclared", "the file names no rate: declare rate_hz")
    if options.unit not in MV_PER_UNIT:
        raise RecordRefused("ecg-undeclared", "the file names no unit: declare unit as mV, uV or V")
    return options.rate_hz, MV_PER_UNIT[options.unit]


def _padding(signal_mv: np.ndarray) -> tuple[int, int]:
    """First sample, and the one behind the last, of what is not padding."""
    length = signal_mv.shape[1]
    used = np.flatnonzero((signal_mv != 0).any(axis=0))
    if not len(used):
        return 0, length
    first, last = int(used[0]), int(used[-1]) + 1
    return (
        first if first >= MINIMUM_PADDING else 0,
        last if length - last >= MINIMUM_PADDING else length,
    )
