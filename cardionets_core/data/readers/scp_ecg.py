"""SCP-ECG, ``.scp`` (step 2 of the walk; EN 1064 / ISO 11073-91064; FORMATS section 5).

Comes in: the path of a file. Goes out: the rhythm of section 6 in mV. Reads the pointers (section 0), code
tables (2), leads (3) and rhythm (6); who the person is (section 1), the reference beat (5) and all
measurements stay unread. Checksums of the four sections that are read must hold. That of the whole file is
not judged: those who blank the names of section 1 leave it stale.
"""

from __future__ import annotations

import binascii
import struct
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_codes import lead_of_number
from cardionets_core.data.readers.scp_huffman import HuffmanError, TableUnsupportedError, decode, read_codes
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 4_000_000
MAXIMUM_LEADS = 64
MAXIMUM_SAMPLES = 8_000_000
"""Of all leads together: twelve at 1000 Hz for 11 minutes."""
_MARK = b"SCPECG"
_HEAD_BYTES = 16  # of each section: checksum, number, length, two versions, six reserved
_REFERENCE_SUBTRACTED = 0x01


def read_scp_ecg(path: Path) -> EcgRecord:
    """Read one SCP-ECG file.

    Args:
        path: the file.

    Returns:
        The leads in the order of the file, often I, II, V1 to V6, III, aVR, aVL, aVF.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable`` (a checksum, a pointer, a
            code), ``ecg-truncated``, ``ecg-wrong-structure`` (no rhythm, leads that are not simultaneous) or
            ``ecg-unsupported`` (reference beats subtracted, bimodal compression, several code tables).
    """
    try:
        return _record(read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES))
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except TableUnsupportedError as error:
        raise RecordRefused("ecg-unsupported", str(error), where=str(path)) from error
    except (HuffmanError, struct.error) as error:
        raise RecordRefused("ecg-unreadable", str(error), where=str(path)) from error


def _record(content: bytes) -> EcgRecord:
    sections = _pointers(content)
    leads, samples = _leads(_section(content, sections, 3))
    rhythm = _section(content, sections, 6)
    if not rhythm:
        raise RecordRefused("ecg-wrong-structure", "no rhythm data")
    nanovolts, interval_us, order, bimodal = struct.unpack_from("<HHBB", rhythm)
    if bimodal:
        raise RecordRefused("ecg-unsupported", "bimodal compression of the rhythm")
    if not nanovolts or not interval_us or order > 2:
        raise RecordRefused("ecg-unreadable", "an impossible unit, interval or order of differences")
    tables = _section(content, sections, 2)
    codes = read_codes(tables) if tables else None
    lengths = struct.unpack_from(f"<{len(leads)}H", rhythm, 6)
    place = 6 + 2 * len(leads)
    if place + sum(lengths) > len(rhythm):
        raise RecordRefused("ecg-truncated", "the leads are longer than the section that holds them")
    signal_mv = np.empty((len(leads), samples), dtype=np.float32)
    for row, length in enumerate(lengths):
        coded = rhythm[place : place + length]
        place += length
        if codes is None:  # without code tables the numbers stand as they are
            if 2 * samples > length:
                raise RecordRefused("ecg-truncated")
            numbers = np.frombuffer(coded, dtype="<i2", count=samples).astype(np.int64)
        else:
            numbers = decode(coded, samples, codes)
        counts = _undo_differences(numbers, order)
        if counts.min() < -(2**15) or counts.max() > 2**15:
            raise RecordRefused("ecg-unreadable", "a sample beyond 16 bits")
        signal_mv[row] = counts * (nanovolts / 1e6)
    return EcgRecord(signal_mv=signal_mv, fs_hz=1e6 / interval_us, leads=leads)


def _pointers(content: bytes) -> dict[int, tuple[int, int]]:
    """Number of each section to its length and its offset from the start of the file."""
    if len(content) < 6 + _HEAD_BYTES:
        raise RecordRefused("ecg-truncated")
    promised = struct.unpack_from("<I", content, 2)[0]
    if promised > len(content):
        raise RecordRefused("ecg-truncated", "the file is shorter than it says")
    length = struct.unpack_from("<I", content, 10)[0]
    first = _checked(content, 0, length, 6)
    count = len(first) // 10
    entries = [struct.unpack_from("<HII", first, 10 * index) for index in range(count)]
    return {number: (length, index - 1) for number, length, index in entries if length and index}


def _section(content: bytes, sections: dict[int, tuple[int, int]], number: int) -> bytes:
    """What stands behind the head of a section; nothing where the file has none."""
    if number not in sections:
        return b""
    length, offset = sections[number]
    return _checked(content, number, length, offset)


def _checked(content: bytes, number: int, length: int, offset: int) -> bytes:
    if offset + length > len(content):
        raise RecordRefused("ecg-truncated", f"section {number} reaches beyond the end")
    section = content[offset : offset + length]
    if length < _HEAD_BYTES or struct.unpack_from("<HI", section, 2) != (number, length):
        raise RecordRefused("ecg-unreadable", f"section {number} is not where its pointer says")
    # CRC-CCITT, polynomial 0x1021 from 0xFFFF, over all but the checksum itself.
    if binascii.crc_hqx(section[2:], 0xFFFF) != struct.unpack_from("<H", section)[0]:
        raise RecordRefused("ecg-unreadable", f"the checksum of section {number} is wrong")
    return section[_HEAD_BYTES:]


def _leads(body: bytes) -> tuple[tuple[str, ...], int]:
    """Names of the leads and the number of samples of each."""
    if not body:
        raise RecordRefused("ecg-wrong-structure", "no definition of leads")
    count, flags = struct.unpack_from("<BB", body)
    if flags & _REFERENCE_SUBTRACTED:
        raise RecordRefused("ecg-unsupported", "the reference beat was subtracted from the rhythm")
    if not 1 <= count <= MAXIMUM_LEADS:
        raise RecordRefused("ecg-wrong-structure", f"{count} leads")
    rows = [struct.unpack_from("<IIB", body, 2 + 9 * index) for index in range(count)]
    leads = tuple(lead_of_number(number) for _, _, number in rows)
    spans = {(start, end) for start, end, _ in rows}
    if len(spans) != 1 or len(set(leads)) != count:
        raise RecordRefused("ecg-wrong-structure", "the leads are not simultaneous, or one stands twice")
    start, end = spans.pop()
    if end < start:
        raise RecordRefused("ecg-unreadable", "an impossible number of samples")
    if count * (end - start + 1) > MAXIMUM_SAMPLES:
        raise RecordRefused("ecg-too-large", "more samples than any ECG has")
    return leads, end - start + 1


def _undo_differences(numbers: np.ndarray, order: int) -> np.ndarray:
    """Samples of differences of order 0, 1 or 2; the first ``order`` numbers are samples themselves."""
    if order == 1:
        return np.cumsum(numbers)
    if order == 2 and len(numbers) > 1:
        steps = numbers.copy()
        steps[1] -= steps[0]
        steps[1:] = np.cumsum(steps[1:])
        return np.cumsum(steps)
    return numbers


def _recognises(path: Path, head: bytes) -> bool:
    if len(head) < 6 + _HEAD_BYTES or head[8:10] != b"\0\0":
        return False
    return head[16:22] == _MARK or path.suffix.lower() == ".scp"


READER = Reader(
    name="scp_ecg",
    kind="ecg",
    title="SCP-ECG",
    suffixes=(".scp",),
    recognises=_recognises,
    read=lambda path, options: read_scp_ecg(path),
)
