"""CSV files with one column a lead (step 2 of the walk; FORMATS section 5).

The first line names the leads; every other line is one sample of each. Such a file names no rate and no unit,
so the site's document does. Columns that are no lead (a time axis, say) pass and are dropped by the checks.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 100_000_000
MAXIMUM_COLUMNS = 64
_MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3}


def read_csv_ecg(path: Path, *, rate_hz: float, unit: str) -> EcgRecord:
    """Read one CSV file.

    Args:
        path: the file.
        rate_hz: samples per second, from the site's document.
        unit: of the numbers, from the site's document.

    Returns:
        The columns in the order of the file; an empty cell is NaN.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated`` (no
            samples) or ``ecg-wrong-structure`` (no lead among the columns, or a column twice).
    """
    content = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)
    head, _, body = content.partition(b"\n")
    try:
        cells = next(csv.reader([head.decode("utf-8-sig").strip()]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordRefused("ecg-unreadable", "the first line is not text", where=str(path)) from error
    leads = tuple(canonical_lead(cell) for cell in cells)
    if not 1 <= len(leads) <= MAXIMUM_COLUMNS or len(set(leads)) != len(leads):
        raise RecordRefused("ecg-wrong-structure", "a column stands twice, or none does", where=str(path))
    if not body.strip():
        raise RecordRefused("ecg-truncated", where=str(path))
    try:
        table = pd.read_csv(io.BytesIO(body), header=None, dtype=np.float64)
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise RecordRefused("ecg-unreadable", "a cell is not a number", where=str(path)) from error
    if table.shape[1] != len(leads):
        raise RecordRefused("ecg-wrong-structure", "the columns do not match the first line", where=str(path))
    with np.errstate(over="ignore"):
        signal = (table.to_numpy().T * _MV_PER_UNIT[unit]).astype(np.float32)
    return EcgRecord(signal_mv=np.ascontiguousarray(signal), fs_hz=rate_hz, leads=leads)


def _read(path: Path, options: ReadOptions) -> EcgRecord:
    if options.rate_hz is None or options.unit not in _MV_PER_UNIT:
        raise RecordRefused("ecg-undeclared", "a CSV file names no rate and no unit", where=str(path))
    return read_csv_ecg(path, rate_hz=options.rate_hz, unit=options.unit)


READER = Reader(
    name="csv",
    kind="ecg",
    title="CSV, one column a lead",
    suffixes=(".csv",),
    recognises=lambda path, head: path.suffix.lower() == ".csv",
    read=_read,
    needs=("rate_hz", "unit"),
)
