"""WFDB records: ``.hea`` beside ``.dat`` or ``.mat`` (step 2 of the walk; FORMATS sections 4 and 5).

Comes in: the path of a header. Goes out: all its signals in mV, NaN where the file marks a sample invalid.
16-bit signals, nearly all there are, are read here; the rarer storage formats go through the wfdb library.
Does not reorder, judge or filter; drops names, dates and comments.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import HEAD_BYTES, Reader
from cardionets_core.data.readers.disk import check_size, read_bytes
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.readers.wfdb_header import Header, HeaderInvalidError, SignalLine, parse_header
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_HEADER_BYTES = 1_000_000
MAXIMUM_SIGNAL_BYTES = 200_000_000
_INVALID_16 = -(2**15)
_LIBRARY_FORMATS = frozenset({24, 32, 61, 80, 160, 212, 310, 311})
_MV_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "nv": 1e-6, "v": 1e3}


def read_wfdb(path: Path) -> EcgRecord:
    """Read one WFDB record.

    Args:
        path: the ``.hea`` file; the signal files lie beside it.

    Returns:
        All signals of the record; 15 of them in PTB. Values equal ``wfdb.rdrecord(...).p_signal`` cast to
        float32 where the unit is mV.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-unreadable``, ``ecg-truncated``, ``ecg-too-large`` or
            ``ecg-wrong-structure``.
    """
    text = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_HEADER_BYTES).decode("latin-1")
    try:
        header = parse_header(text)
    except HeaderInvalidError as error:
        raise RecordRefused("ecg-unreadable", f"the header is wrong: {error}", where=str(path)) from error
    if header.rate_hz <= 0:
        raise RecordRefused("ecg-unreadable", "the rate is not positive", where=str(path))
    scales = [_mv_per_unit(signal, path) for signal in header.signals]
    if all(signal.storage == 16 and signal.plain for signal in header.signals):
        values = _read_16(header, path)
    else:
        values = _read_with_library(header, path)
    for row, scale in enumerate(scales):
        if scale != 1.0:
            values[row] *= scale
    with np.errstate(over="ignore"):
        signal_mv = values.astype(np.float32)
    return EcgRecord(
        signal_mv=signal_mv,
        fs_hz=header.rate_hz,
        leads=tuple(canonical_lead(signal.lead) for signal in header.signals),
    )


def _mv_per_unit(signal: SignalLine, path: Path) -> float:
    scale = _MV_PER_UNIT.get(signal.unit.lower())
    if scale is None:
        raise RecordRefused("ecg-wrong-structure", "a signal's unit is not a voltage", where=str(path))
    return scale


def _read_16(header: Header, path: Path) -> np.ndarray:
    """Float64 [L, T] in the header's units: each file interleaves the signals that name it."""
    groups: dict[str, list[int]] = {}
    for row, signal in enumerate(header.signals):
        groups.setdefault(signal.file_name, []).append(row)
    counts: dict[int, np.ndarray] = {}
    for name, rows in groups.items():
        content = read_bytes(path.parent / name, kind="ecg", limit_bytes=MAXIMUM_SIGNAL_BYTES)
        start = header.signals[rows[0]].offset_bytes
        available = max(0, len(content) - start) // (2 * len(rows))
        samples = header.samples or available
        if samples > available or samples == 0:
            raise RecordRefused("ecg-truncated", where=str(path))
        flat = np.frombuffer(content, dtype="<i2", count=samples * len(rows), offset=start)
        counts.update(zip(rows, flat.reshape(samples, len(rows)).T, strict=True))
    if len({len(row) for row in counts.values()}) != 1:
        raise RecordRefused("ecg-truncated", "the signal files differ in length", where=str(path))
    stacked = np.stack([counts[row] for row in range(len(header.signals))])
    gain = np.array([signal.gain for signal in header.signals])[:, None]
    baseline = np.array([signal.baseline for signal in header.signals])[:, None]
    values = (stacked.astype(np.float64) - baseline) / gain
    values[stacked == _INVALID_16] = np.nan
    return values


def _read_with_library(header: Header, path: Path) -> np.ndarray:
    """Float64 [L, T] in the header's units, by ``wfdb.rdrecord``."""
    if not header.standard or any(signal.storage not in _LIBRARY_FORMATS | {16} for signal in header.signals):
        raise RecordRefused("ecg-unreadable", "a storage format that is not read here", where=str(path))
    size = 0
    for name in {signal.file_name for signal in header.signals}:
        size += check_size(path.parent / name, kind="ecg", limit_bytes=MAXIMUM_SIGNAL_BYTES)
    if (header.samples or 0) * len(header.signals) > 2 * size:  # no format packs two samples into a byte
        raise RecordRefused("ecg-truncated", where=str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns under pandas 3
        import wfdb  # heavy, and rarely needed

    try:
        record = wfdb.rdrecord(str(path.with_suffix("")))
        values = np.ascontiguousarray(record.p_signal.T, dtype=np.float64)
    except Exception as error:  # the library raises many kinds on hostile bytes
        raise RecordRefused("ecg-unreadable", "the wfdb library cannot read it", where=str(path)) from error
    if values.ndim != 2 or values.shape[0] != len(header.signals) or values.shape[1] == 0:
        raise RecordRefused("ecg-unreadable", "signals of unequal length", where=str(path))
    return values


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
