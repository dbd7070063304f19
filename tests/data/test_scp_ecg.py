"""SCP-ECG: equal to its DICOM twin count for count; every way of coding; typed refusals."""

from __future__ import annotations

import binascii
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.scp_ecg import READER, read_scp_ecg
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 61, 62, 63, 64)
NAMES = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "aVR", "aVL", "aVF")
DEFAULT = struct.pack("<H", 19999)
# The standard's own numbers of its default table, prefixes with the first bit lowest.
PREFIX_BITS = (1, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 10, 10)
VALUES = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8, 0, 0)
BASE_CODES = (0, 1, 5, 3, 11, 7, 23, 15, 47, 31, 95, 63, 191, 127, 383, 255, 767, 511, 1023)


def written_out_table(*, stays: int = 1) -> bytes:
    entries = b""
    for index, (bits, value, code) in enumerate(zip(PREFIX_BITS, VALUES, BASE_CODES, strict=True)):
        total = bits + {17: 8, 18: 16}.get(index, 0)
        entries += struct.pack("<BBBhI", bits, total, stays, value, code)
    return struct.pack("<HH", 1, len(PREFIX_BITS)) + entries


def coded(numbers: list[int]) -> bytes:
    """Huffman bits by the default table, told from its description and not by the reader's code."""
    bits = ""
    for number in numbers:
        size = abs(number)
        if number == 0:
            bits += "0"
        elif size <= 8:
            bits += "1" * size + ("100"[1:] if number > 0 else "01")
        elif -128 <= number < 128:
            bits += "1111111110" + f"{number & 0xFF:08b}"
        else:
            bits += "1111111111" + f"{number & 0xFFFF:016b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def differences(row: np.ndarray, order: int) -> list[int]:
    first = [int(value) for value in row[:order]]
    return first + [int(value) for value in np.diff(row.astype(int), n=order)]


def section(number: int, body: bytes) -> bytes:
    reserved = b"SCPECG" if number == 0 else bytes(6)
    inner = struct.pack("<HIBB", number, 16 + len(body), 20, 20) + reserved + body
    return struct.pack("<H", binascii.crc_hqx(inner, 0xFFFF)) + inner


def scp(rows: np.ndarray, *, order: int = 2, tables: bytes | None = DEFAULT, bimodal: int = 0,
        flags: int = 0x64, nanovolts: int = 5000, interval_us: int = 2000, numbers: tuple[int, ...] = NUMBERS,
        ends: tuple[int, ...] | None = None) -> bytes:  # fmt: skip
    """A whole file with the counts [L, T]."""
    ends = ends or (rows.shape[1],) * len(rows)
    spans = b"".join(struct.pack("<IIB", 1, end, n) for n, end in zip(numbers, ends, strict=False))
    coding = [differences(row, order) for row in rows]
    data = [coded(row) if tables else np.array(row, "<i2").tobytes() for row in coding]
    rhythm = struct.pack("<HHBB", nanovolts, interval_us, order, bimodal)
    rhythm += b"".join(struct.pack("<H", len(lead)) for lead in data) + b"".join(data)
    bodies = {1: b"SOMEBODY", 3: struct.pack("<BB", len(rows), flags) + spans, 6: rhythm}
    if tables:
        bodies[2] = tables
    sections = {number: section(number, body) for number, body in bodies.items()}
    place, pointers = 6 + 16 + 120, b""
    for number in range(12):
        held = sections.get(number, b"")
        length = 136 if number == 0 else len(held)
        index = 7 if number == 0 else (place + 1 if held else 0)
        pointers += struct.pack("<HII", number, length, index)
        place += len(held)
    content = section(0, pointers) + b"".join(sections[number] for number in sorted(sections))
    head = struct.pack("<I", len(content) + 6)
    return struct.pack("<H", binascii.crc_hqx(head + content, 0xFFFF)) + head + content


def counts(samples: int = 600, leads: int = 12) -> np.ndarray:
    rng = np.random.default_rng(7)
    rows = np.cumsum(rng.integers(-9, 10, (leads, samples)), axis=1)
    rows[:, samples // 2] += 900
    return rows


def put(folder: Path, content: bytes) -> Path:
    path = folder / "ecg.scp"
    path.write_bytes(content)
    return path


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_scp_ecg(put(folder, content))
    return caught.value.reason


@pytest.fixture
def example(shared_data: Path) -> Path:
    return shared_data / "ecg" / "vendor" / "scp" / "Example.scp"


def test_equals_its_dicom_twin_count_for_count(example: Path, shared_data: Path) -> None:
    record = read_scp_ecg(example)
    assert record.leads == NAMES and record.fs_hz == 500 and record.signal_mv.dtype == np.float32
    twin = pydicom.dcmread(shared_data / "ecg" / "vendor" / "dicom" / "Example.dcm").WaveformSequence[0]
    raw = np.frombuffer(twin.WaveformData, "<i2").reshape(-1, 12)
    for column, channel in enumerate(twin.ChannelDefinitionSequence):
        lead = channel.ChannelSourceSequence[0].CodeMeaning.removeprefix("Lead ")
        row = record.signal_mv[record.leads.index(lead)]
        np.testing.assert_array_equal(np.rint(row / 0.0025), raw[:, column])
        np.testing.assert_allclose(row, raw[:, column] * 0.0025, rtol=1e-6)


def test_is_recognised_by_content(example: Path) -> None:
    head = example.read_bytes()[:4096]
    assert READER.recognises(Path("without-ending"), head)
    assert not READER.recognises(Path("a.scp"), b"\x89HDF\r\n\x1a\n" + bytes(40).replace(b"\0", b"x"))
    assert READER.read(example, ReadOptions()).fs_hz == 500


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("tables", [DEFAULT, written_out_table(), None])
def test_every_coding_gives_the_counts(tmp_path: Path, order: int, tables: bytes | None) -> None:
    rows = counts()
    record = read_scp_ecg(put(tmp_path, scp(rows, order=order, tables=tables)))
    assert record.leads == NAMES and record.fs_hz == 500 and set(record.leads) == set(LEADS)
    np.testing.assert_array_equal(np.rint(record.signal_mv / 0.005), rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.lists(st.integers(-8000, 8000), min_size=1, max_size=40), order=st.integers(0, 2))
def test_decoding_undoes_coding(tmp_path: Path, row: list[int], order: int) -> None:
    rows = np.array([row, row[::-1]])
    record = read_scp_ecg(put(tmp_path, scp(rows, order=order, numbers=(1, 99), nanovolts=1000)))
    np.testing.assert_array_equal(np.rint(record.signal_mv * 1000), rows)
    assert record.leads == ("I", "lead-99")


def test_unit_and_rate_are_those_of_the_file(tmp_path: Path) -> None:
    rows = counts()
    record = read_scp_ecg(put(tmp_path, scp(rows, nanovolts=1250, interval_us=1000)))
    assert record.fs_hz == 1000
    np.testing.assert_allclose(record.signal_mv, rows * 0.00125, rtol=1e-6)


@pytest.mark.parametrize(("options", "reason"), [
    ({"flags": 0x65}, "ecg-unsupported"),
    ({"bimodal": 1}, "ecg-unsupported"),
    ({"tables": written_out_table(stays=0)}, "ecg-unsupported"),
    ({"tables": struct.pack("<HH", 1, 1) + struct.pack("<BBBhI", 20, 20, 1, 0, 0)}, "ecg-unsupported"),
    ({"tables": struct.pack("<HH", 1, 1) + struct.pack("<BBBhI", 1, 1, 1, 0, 0)}, "ecg-unreadable"),
    ({"tables": struct.pack("<HH", 1, 40)}, "ecg-unreadable"),
    ({"nanovolts": 0}, "ecg-unreadable"),
    ({"interval_us": 0}, "ecg-unreadable"),
    ({"ends": (600,) * 11 + (599,)}, "ecg-wrong-structure"),
    ({"ends": (90_000,) * 12}, "ecg-unreadable"),
    ({"ends": (0,) * 12}, "ecg-unreadable"),
    ({"ends": (2**32 - 1,) * 12}, "ecg-too-large"),
    ({"ends": (650,) * 12, "tables": None}, "ecg-truncated"),
    ({"numbers": (1, *NUMBERS[:11])}, "ecg-wrong-structure"),
])  # fmt: skip
def test_what_is_not_read_is_refused(tmp_path: Path, options: dict, reason: str) -> None:
    assert refused(tmp_path, scp(counts(), **options)) == reason


def test_checksums_of_what_is_read_must_hold_and_names_may_be_blanked(example: Path, tmp_path: Path) -> None:
    content = bytearray(example.read_bytes())
    assert b"Clark" in content  # the open example's invented name
    blanked = content.replace(b"Clark", b"XXXXX")
    np.testing.assert_array_equal(
        read_scp_ecg(put(tmp_path, blanked)).signal_mv, read_scp_ecg(example).signal_mv
    )
    for place in (30, 0x150, 0x2000):  # inside the pointers, the leads and the rhythm
        wrong = bytearray(content)
        wrong[place] ^= 4
        assert refused(tmp_path, wrong) == "ecg-unreadable"
    assert refused(tmp_path, content[:-1]) == "ecg-truncated"
    assert refused(tmp_path, b"") == "ecg-truncated"
    assert refused(tmp_path, bytes(4_000_001)) == "ecg-too-large"


def test_mutated_files_give_a_record_or_a_refusal(example: Path, tmp_path: Path, answer_of) -> None:
    """Checksums are mended after each wound, so that the wound reaches the decoder."""
    rng = np.random.default_rng(5)
    small = scp(counts(200))
    answers = set()
    for case in range(300):
        content = bytearray(example.read_bytes() if case % 10 == 0 else small)
        for _ in range(int(rng.integers(1, 5))):
            content[int(rng.integers(6, len(content)))] = int(rng.integers(0, 256))
        content = content[: int(rng.integers(0, len(content)))] if case % 5 == 0 else mended(content)
        answers.add(answer_of(read_scp_ecg, put(tmp_path, bytes(content))))
    assert {"read", "ecg-truncated", "ecg-unreadable"} <= answers


def mended(content: bytearray) -> bytearray:
    """Right checksums for whatever the pointers point to."""
    places = [6]
    for index in range(12):
        places.append(struct.unpack_from("<I", content, 22 + 10 * index + 6)[0] - 1)
    for place in [*sorted(places[1:], reverse=True), 6]:
        if 0 < place < len(content) - 16:
            length = struct.unpack_from("<I", content, place + 4)[0]
            crc = binascii.crc_hqx(bytes(content[place + 2 : place + length]), 0xFFFF)
            struct.pack_into("<H", content, place, crc)
    return content
