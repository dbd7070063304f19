"""WFDB records: ``.hea`` beside ``.dat`` or ``.mat`` (step 2 of the walk; FORMATS sections 4 and 5).

Comes in: the path of a header. Goes out: all its signals in mV, NaN where the file marks a sample invalid.
16-bit signals, nearly all there are, are read here; the rarer storage formats go through the wfdb library.
Does not reorder, judge or filter; drops names, dates and comments.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import HEAD_BYTES, Reader
from cardionets_core.data.readers.disk import check_size, read_bytes
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.readers.wfdb_header import Coding, Header, HeaderInvalidError, parse_header
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_HEADER_BYTES = 1_000_000
MAXIMUM_SIGNAL_BYTES = 24_000_000
"""Of all signal files together: fifteen signals at 1000 Hz for 13 minutes."""
MAXIMUM_LIBRARY_BYTES = 12_000_000
_INVALID_16 = -(2**15)
_LIBRARY_FORMATS = frozenset({24, 32, 61, 80, 160, 212, 310, 311})
_lead = lru_cache(maxsize=256)(canonical_lead)


def read_wfdb(path: Path) -> EcgRecord:
    """Read one WFDB record.

    Args:
        path: the ``.hea`` file; the signal files lie beside it.

    Returns:
        All signals of the record; 15 of them in PTB. Values equal ``wfdb.rdrecord(...).p_signal`` cast to
        float32 where the unit is mV.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-unreadable``, ``ecg-truncated``, ``ecg-too-large``,
            ``ecg-unsupported`` (a storage format) or ``ecg-wrong-structure`` (a signal that is no voltage).
    """
    text = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_HEADER_BYTES).decode("latin-1")
    try:
        header = parse_header(text)
    except HeaderInvalidError as error:
        raise RecordRefused("ecg-unreadable", f"the header is wrong: {error}", where=str(path)) from error
    codings = [signal.coding for signal in header.signals]
    if any(coding.mv_per_unit is None for coding in codings):
        raise RecordRefused("ecg-wrong-structure", "a signal's unit is not a voltage", where=str(path))
    if all(coding.storage == 16 and coding.plain for coding in codings):
        signal_mv = _read_16(header, path)
    else:
        signal_mv = _read_with_library(header, path)
    return EcgRecord(
        signal_mv=signal_mv,
        fs_hz=header.rate_hz,
        leads=tuple(_lead(signal.lead) for signal in header.signals),
    )


def _read_16(header: Header, path: Path) -> np.ndarray:
    """Float32 [L, T] in mV: each file interleaves the signals that name it."""
    groups: dict[str, list[int]] = {}
    for row, signal in enumerate(header.signals):
        groups.setdefault(signal.file_name, []).append(row)
    signal_mv: np.ndarray | None = None
    left_bytes = MAXIMUM_SIGNAL_BYTES
    for name, rows in groups.items():
        content = read_bytes(path.parent / name, kind="ecg", limit_bytes=left_bytes)
        left_bytes -= len(content)
        start = header.signals[rows[0]].coding.offset_bytes
        available = max(0, len(content) - start) // (2 * len(rows))
        samples = header.samples or available
        if samples > available or samples == 0:
            raise RecordRefused("ecg-truncated", where=str(path))
        if signal_mv is None:
            signal_mv = np.empty((len(header.signals), samples), dtype=np.float32)
        elif signal_mv.shape[1] != samples:
            raise RecordRefused("ecg-truncated", "the signal files differ in length", where=str(path))
        flat = np.frombuffer(content, dtype="<i2", count=samples * len(rows), offset=start)
        counts = np.ascontiguousarray(flat.reshape(samples, len(rows)).T)
        values = _millivolts(counts, [header.signals[row].coding for row in rows])
        if flat.min() == _INVALID_16:
            values[counts == _INVALID_16] = np.nan
        if len(groups) == 1:
            return values
        signal_mv[rows] = values
    assert signal_mv is not None  # a header holds at least one signal
    return signal_mv


def _millivolts(counts: np.ndarray, codings: list[Coding]) -> np.ndarray:
    """Float32 of the float64 quotients (count - baseline) / gain, by the shortest way that gives the same.

    A quotient of two numbers that float32 holds exactly is the same rounded once to float32 or first to
    float64 (53 bits are more than twice 24 plus 1: Figueroa, When is double rounding innocuous?, 1995).

    Args:
        counts: int16 [L, T].
        codings: L of them.
    """
    if all(coding.single for coding in codings):
        values = counts.astype(np.float32)
        if any(coding.baseline for coding in codings):
            values -= np.array([coding.baseline for coding in codings], dtype=np.float32)[:, None]
        values /= np.array([coding.gain for coding in codings], dtype=np.float32)[:, None]
        return values
    values = np.empty(counts.shape, dtype=np.float32)
    for row, coding in enumerate(codings):
        values[row] = _row_mv((counts[row].astype(np.float64) - coding.baseline) / coding.gain, coding)
    return values


def _row_mv(row: np.ndarray, coding: Coding) -> np.ndarray:
    """Float32 [T] of float64 values in the unit of the coding; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return (row * (coding.mv_per_unit or 1.0)).astype(np.float32)


def _read_with_library(header: Header, path: Path) -> np.ndarray:
    """Float32 [L, T] in mV, by ``wfdb.rdrecord``."""
    codings = [signal.coding for signal in header.signals]
    if any(coding.storage not in _LIBRARY_FORMATS | {16} for coding in codings):
        raise RecordRefused("ecg-unsupported", "a storage format that is not read here", where=str(path))
    if not header.standard:
        raise RecordRefused("ecg-unreadable", "a record line that wfdb does not read", where=str(path))
    size = 0
    for name in {signal.file_name for signal in header.signals}:
        size += check_size(path.parent / name, kind="ecg", limit_bytes=MAXIMUM_LIBRARY_BYTES - size)
    if (header.samples or 0) * len(header.signals) > 2 * size:  # no format packs two samples into a byte
        raise RecordRefused("ecg-truncated", where=str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns under pandas 3
        import wfdb  # heavy, and rarely needed

    try:
        record = wfdb.rdrecord(str(path.with_suffix("")))
        values = np.asarray(record.p_signal, dtype=np.float64)
    except Exception as error:  # the library raises many kinds on hostile bytes
        raise RecordRefused("ecg-unreadable", "the wfdb library cannot read it", where=str(path)) from error
    if values.ndim != 2 or values.shape[1] != len(codings) or len(values) == 0:
        raise RecordRefused("ecg-unreadable", "signals of unequal length", where=str(path))
    return np.stack([_row_mv(row, coding) for row, coding in zip(values.T, codings, strict=True)])


def _recognises(path: Path, head: bytes) -> bool:
    if path.suffix.lower() != ".hea":
        return False
    try:
        parse_header(head.decode("latin-1"))
    except HeaderInvalidError:
        return len(head) == HEAD_BYTES
    return True


READER = Reader(
    name="wfdb",
    kind="ecg",
    title="WFDB (.hea with .dat or .mat)",
    suffixes=(".hea",),
    recognises=_recognises,
    read=lambda path, options: read_wfdb(path),
)
