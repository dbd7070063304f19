"""CSV files with one column a lead (step 2 of the walk; FORMATS section 5).

Every line is one sample of each lead; the first line may name the leads. Such a file names no rate and no
unit, so the site's document does, and the leads where the file does not. Fields are split by ``,``, ``;`` or
tabs; with the latter two a decimal comma is understood. A column of times is not read. Columns of other
names pass and are dropped by the checks.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from cardionets_core.data.readers.bare_array import MV_PER_UNIT, declared
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 24_000_000
MAXIMUM_COLUMNS = 64
MAXIMUM_LINE_BYTES = 4096
_TIMES = {"", "time", "t", "timestamp", "date", "datetime", "sample", "index", "time_s", "time_ms", "ms", "s"}


def read_csv_ecg(path: Path, *, rate_hz: float, unit: str, leads: tuple[str, ...] | None = None) -> EcgRecord:
    """Read one CSV file.

    Args:
        path: the file.
        rate_hz: samples per second, from the site's document.
        unit: of the numbers, from the site's document.
        leads: names of the columns, from the site's document; needed where the first line holds numbers, and
            used where none of its names is a lead.

    Returns:
        The columns in the order of the file; an empty cell is NaN.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated`` (no
            samples), ``ecg-undeclared`` (no names of leads) or ``ecg-wrong-structure`` (a column twice, none,
            or another number than is declared).
    """
    content = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)
    try:
        return _record(content, rate_hz=rate_hz, scale=MV_PER_UNIT[unit], leads=leads)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal


def _record(content: bytes, *, rate_hz: float, scale: float, leads: tuple[str, ...] | None) -> EcgRecord:
    # Without quotes a line is a line, and its length bounds the columns that pandas sets aside.
    content = content.replace(b'"', b"")
    if max(map(len, io.BytesIO(content)), default=0) > MAXIMUM_LINE_BYTES:
        raise RecordRefused("ecg-wrong-structure", "a line is longer than any ECG's")
    head, _, body = content.partition(b"\n")
    try:
        cells, separator = _first_cells(head)
    except ValueError as error:
        raise RecordRefused("ecg-unreadable", "the first line is not text") from error
    if not 1 <= len(cells) <= MAXIMUM_COLUMNS or not any(cells):
        raise RecordRefused("ecg-wrong-structure", "there is no column, or there are too many")
    decimal = "," if separator != "," and b"," in (body or head) else "."
    if all(_is_number(cell, decimal) for cell in cells):
        body = content.removeprefix(b"\xef\xbb\xbf")
        names = _declared_names(len(cells), leads)
    else:
        names = _spelt_names(cells, leads)
    kept = [column for column, name in enumerate(names) if name is not None]
    found = tuple(name for name in names if name is not None)
    if not found or len(set(found)) != len(found):
        raise RecordRefused("ecg-wrong-structure", "a column stands twice, or none is a signal")
    if not body.strip():
        raise RecordRefused("ecg-truncated")
    table = _table(body, separator, decimal, columns=len(names), kept=kept)
    with np.errstate(over="ignore"):
        signal = (table.T * scale).astype(np.float32)
    return EcgRecord(signal_mv=np.ascontiguousarray(signal), fs_hz=rate_hz, leads=found)


def _declared_names(count: int, leads: tuple[str, ...] | None) -> list[str | None]:
    """Names of the columns of a file that begins with numbers; None for a column of times in front."""
    if leads is None:
        raise RecordRefused("ecg-undeclared", "the first line names no leads: declare leads")
    names: list[str | None] = [canonical_lead(lead) for lead in leads]
    if count == len(names) + 1:
        return [None, *names]
    if count != len(names):
        raise RecordRefused("ecg-wrong-structure", f"{count} columns for {len(names)} declared leads")
    return names


def _spelt_names(cells: list[str], leads: tuple[str, ...] | None) -> list[str | None]:
    """Names of the columns of a file whose first line names them; None for a column of times."""
    names = [None if cell.lower() in _TIMES else canonical_lead(cell) for cell in cells]
    signals = [name for name in names if name is not None]
    if leads is not None and len(signals) == len(leads) and not any(name in LEADS for name in signals):
        spelt = iter(canonical_lead(lead) for lead in leads)
        return [None if name is None else next(spelt) for name in names]
    return names


def _table(body: bytes, separator: str, decimal: str, *, columns: int, kept: list[int]) -> np.ndarray:
    """Float64 [T, columns that are kept]."""
    skipped = {column: str for column in range(columns) if column not in kept}
    try:
        table = pd.read_csv(
            io.BytesIO(body), header=None, sep=separator, decimal=decimal,
            dtype={**dict.fromkeys(kept, np.float64), **skipped}, encoding="latin-1", quoting=csv.QUOTE_NONE,
        )  # fmt: skip
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise RecordRefused("ecg-unreadable", "a cell is not a number") from error
    if table.shape[1] != columns:
        raise RecordRefused("ecg-wrong-structure", "the columns do not match the first line")
    return table[kept].to_numpy(dtype=np.float64)


def _first_cells(head: bytes) -> tuple[list[str], str]:
    """Cells of the first line, and what separates them.

    Raises:
        ValueError: it is no text.
    """
    line = head.decode("utf-8-sig").rstrip("\r")
    separator = next((mark for mark in (";", "\t") if mark in line), ",")
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])], separator
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _is_number(cell: str, decimal: str) -> bool:
    """An empty cell is a missing sample."""
    try:
        float(cell.replace(decimal, ".") or "nan")
    except ValueError:
        return False
    return True


def _recognises(path: Path, head: bytes) -> bool:
    """By its ending, and a first line that names a lead or holds numbers only: tables are CSV files too."""
    if path.suffix.lower() not in READER.suffixes:
        return False
    try:
        cells, separator = _first_cells(head.partition(b"\n")[0])
    except ValueError:
        return False
    decimal = "." if separator == "," else ","
    return any(canonical_lead(cell) in LEADS for cell in cells) or (
        any(cells) and all(_is_number(cell, decimal) for cell in cells)
    )


def _read(path: Path, options: ReadOptions) -> EcgRecord:
    try:
        rate_hz, _ = declared(options)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    return read_csv_ecg(path, rate_hz=rate_hz, unit=options.unit or "", leads=options.leads)


READER = Reader(
    name="csv",
    kind="ecg",
    title="CSV, one column a lead",
    suffixes=(".csv", ".tsv"),
    recognises=_recognises,
    read=_read,
    needs=("rate_hz", "unit"),
)
