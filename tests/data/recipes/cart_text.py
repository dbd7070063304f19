"""Text export of an invented ECG cart: ``CARTTEXT``, ``rate``, ``unit``, lead names, one line a sample.

The example of CONTRIBUTING's recipe "Add a reader": a whole reader, from the bytes to the record.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 20_000_000
_MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3}


def read_cart_text(path: Path) -> EcgRecord:
    """Read one export.

    Returns:
        The leads in the order of the file, in mV.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable`` or ``ecg-truncated``.
    """
    lines = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES).decode("ascii", "replace").splitlines()
    try:
        head = dict(line.split("=", 1) for line in lines[1:4])
        rate_hz, mv_per_unit = float(head["rate"]), _MV_PER_UNIT[head["unit"]]
        leads = tuple(canonical_lead(name) for name in head["leads"].split(","))
        rows = [[float(cell) for cell in line.split(",")] for line in lines[4:-1]]
        signal_mv = np.array(rows, dtype=np.float32).T * np.float32(mv_per_unit)
    except (ValueError, KeyError) as error:
        raise RecordRefused("ecg-unreadable", "not an export of this cart", where=str(path)) from error
    if lines[-1] != "END" or not rows:
        raise RecordRefused("ecg-truncated", where=str(path))
    if signal_mv.ndim != 2 or len(signal_mv) != len(leads) or not 0 < rate_hz < 1e6:
        raise RecordRefused("ecg-unreadable", "columns and lead names differ", where=str(path))
    return EcgRecord(signal_mv=np.ascontiguousarray(signal_mv), fs_hz=rate_hz, leads=leads)


def _read(path: Path, options: ReadOptions) -> EcgRecord:
    return read_cart_text(path)


READER = Reader(
    name="cart_text",
    kind="ecg",
    title="text of an invented cart",
    suffixes=(".cart",),
    recognises=lambda path, head: head.startswith(b"CARTTEXT"),
    read=_read,
)
