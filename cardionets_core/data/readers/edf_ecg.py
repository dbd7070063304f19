"""EDF and EDF+ (step 2 of the walk; Kemp et al. 1992, Kemp and Olivan 2003).

Comes in: the path of a file. Goes out: those signals in mV whose label is one of the twelve leads. The two
80-byte fields about the person and the recording, its date and all annotations stay unread.

Read by hand: the format is a fixed table of ASCII fields before 16-bit numbers, while pyedflib prints to the
standard output of the program and refuses every file that strays from the letter.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 16_000_000
MAXIMUM_SIGNALS = 256
_HEAD_BYTES = 256  # of the file, and again for each signal
_VERSION = b"0       "
_MV_PER_UNIT = {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "mv": 1.0, "v": 1e3}
_WIDTHS = {"label": 16, "transducer": 80, "unit": 8, "physical_min": 8, "physical_max": 8, "digital_min": 8,
           "digital_max": 8, "filters": 80, "samples": 8, "reserved": 32}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signal:
    """One lead: its place inside a data record, and its line from counts to mV."""

    lead: str
    start: int
    samples: int
    mv_per_count: float
    offset_mv: float


def read_edf(path: Path) -> EcgRecord:
    """Read one EDF or EDF+ file.

    Args:
        path: the file; labels such as ``ECG I``, ``EKG V1``, ``aVR`` or ``Lead II``.

    Returns:
        The leads in the order of the file; other signals (annotations, breathing) are left out.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure`` (no lead, a lead twice, leads of unequal rate, a unit that is no voltage)
            or ``ecg-unsupported`` (EDF+D: a recording with gaps).
    """
    content = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)
    try:
        return _record(content)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal


def _record(content: bytes) -> EcgRecord:
    if content[:8] != _VERSION:
        raise RecordRefused("ecg-unreadable", "not an EDF file")
    if len(content) < _HEAD_BYTES:
        raise RecordRefused("ecg-truncated", "the header is cut off")
    if content[192:197] == b"EDF+D":
        raise RecordRefused("ecg-unsupported", "a recording with gaps (EDF+D)")
    count = _whole(content[252:256], "number of signals")
    start = _HEAD_BYTES * (1 + count)
    if not 1 <= count <= MAXIMUM_SIGNALS or _whole(content[184:192], "header length") != start:
        raise RecordRefused("ecg-unreadable", "the header's length does not match its signals")
    if len(content) < start:
        raise RecordRefused("ecg-truncated", "the header is cut off")
    sizes, signals = _signals(content[_HEAD_BYTES:start], count)
    if not signals:
        raise RecordRefused("ecg-wrong-structure", "no signal is labelled as one of the twelve leads")
    leads = tuple(signal.lead for signal in signals)
    if len(set(leads)) != len(leads) or len({signal.samples for signal in signals}) != 1:
        raise RecordRefused("ecg-wrong-structure", "a lead stands twice, or the leads differ in rate")
    seconds = _real(content[244:252], "duration of a data record")
    if not 1e-4 < seconds < 1e6 or signals[0].samples < 1:
        raise RecordRefused("ecg-unreadable", "an impossible rate")
    records = _whole(content[236:244], "number of data records")
    available = (len(content) - start) // (2 * sum(sizes))
    if records > available or (records == -1 and available == 0) or records == 0:
        raise RecordRefused("ecg-truncated")
    records = available if records == -1 else records  # -1: the recorder was still running
    counts = np.frombuffer(content, dtype="<i2", count=records * sum(sizes), offset=start)
    counts = counts.reshape(records, sum(sizes))
    signal_mv = np.empty((len(signals), records * signals[0].samples), dtype=np.float32)
    for row, signal in enumerate(signals):
        own = counts[:, signal.start : signal.start + signal.samples].reshape(-1)
        with np.errstate(over="ignore"):
            signal_mv[row] = own * signal.mv_per_count + signal.offset_mv
    return EcgRecord(signal_mv=signal_mv, fs_hz=signals[0].samples / seconds, leads=leads)


def _signals(header: bytes, count: int) -> tuple[list[int], list[_Signal]]:
    """Samples a record of every signal, and those signals that are leads."""
    columns: dict[str, list[bytes]] = {}
    place = 0
    for name, width in _WIDTHS.items():
        columns[name] = [header[place + width * row : place + width * (row + 1)] for row in range(count)]
        place += width * count
    sizes = [_whole(cell, "number of samples") for cell in columns["samples"]]
    if min(sizes) < 0 or not 1 <= sum(sizes) <= MAXIMUM_BYTES:
        raise RecordRefused("ecg-unreadable", "an impossible number of samples")
    found = []
    for row, label in enumerate(columns["label"]):
        lead = canonical_lead(re.sub(r"^(?:ECG|EKG)[ _-]+", "", _text(label), flags=re.I))
        if lead in LEADS:
            cells = {name: cells[row] for name, cells in columns.items()}
            found.append(_signal(lead, cells, start=sum(sizes[:row]), samples=sizes[row]))
    return sizes, found


def _signal(lead: str, cells: dict[str, bytes], *, start: int, samples: int) -> _Signal:
    scale = _MV_PER_UNIT.get(_text(cells["unit"]).lower())
    if scale is None:
        raise RecordRefused("ecg-wrong-structure", "a lead's unit is not a voltage")
    low, high = _real(cells["physical_min"], "range"), _real(cells["physical_max"], "range")
    first, last = _whole(cells["digital_min"], "range"), _whole(cells["digital_max"], "range")
    if low == high or not -(2**15) <= first < last < 2**15:
        raise RecordRefused("ecg-unreadable", "a lead's range is empty")
    slope = (high - low) / (last - first)
    return _Signal(lead=lead, start=start, samples=samples, mv_per_count=slope * scale,
                   offset_mv=(low - slope * first) * scale)  # fmt: skip


def _text(cell: bytes) -> str:
    return cell.decode("latin-1").strip()


def _whole(cell: bytes, name: str) -> int:
    if not re.fullmatch(rb" *[-+]?\d+[ \0]*", cell):
        raise RecordRefused("ecg-unreadable", f"the {name} is not a whole number")
    return int(cell.strip(b" \0"))


def _real(cell: bytes, name: str) -> float:
    try:
        value = float(_text(cell).strip("\0"))
    except ValueError:
        raise RecordRefused("ecg-unreadable", f"the {name} is not a number") from None
    if not math.isfinite(value) or abs(value) > 1e12:
        raise RecordRefused("ecg-unreadable", f"the {name} is not finite")
    return value


READER = Reader(
    name="edf",
    kind="ecg",
    title="EDF and EDF+",
    suffixes=(".edf",),
    recognises=lambda path, head: head[:8] == _VERSION and head[252:256].strip().isdigit(),
    read=lambda path, options: read_edf(path),
)
