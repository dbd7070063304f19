"""CSV: unit and rate come from the site; hostile bytes give a typed refusal."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.csv_ecg import READER, read_csv_ecg
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "ecg.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_become_rows_in_millivolts(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffi,MDC_ECG_LEAD_II, avr ,vx\r\n1000,2,3,0\r\n-5,,7,1\r\n")
    record = read_csv_ecg(path, rate_hz=400.0, unit="uV")
    assert record.leads == ("I", "II", "aVR", "vx") and record.fs_hz == 400
    np.testing.assert_allclose(
        record.signal_mv[:3], [[1, -0.005], [0.002, np.nan], [0.003, 0.007]], rtol=1e-6
    )


@pytest.mark.parametrize("text", [
    "I,II\n1.5,-2\n0.25,\n", "I;II\n1.5;-2\n0.25;\n", "I;II\n1,5;-2\n0,25;\n", "I\tII\n1,5\t-2\n0,25\t\n",
    "time;I;II\n12:00:01,5;1,5;-2\n12:00:02;0,25;\n", ",I,II\n0,1.5,-2\n1,0.25,\n",
    "I,II,\n1.5,-2,\n0.25,,\n",
    '"I","II"\n"1.5","-2"\n"0.25",""\n', "I,II\r\n1.5,-2\r\n0.25,\r\n", "Time (x),I,II\n1,1.5,-2\n2,0.25,\n",
])  # fmt: skip
def test_separators_decimal_commas_and_times_are_understood(tmp_path: Path, text: str) -> None:
    record = read_csv_ecg(write(tmp_path, text), rate_hz=500.0, unit="mV")
    signal = dict(zip(record.leads, record.signal_mv, strict=True))
    np.testing.assert_array_equal(signal["I"], [1.5, 0.25])
    np.testing.assert_array_equal(signal["II"], [-2, np.nan])
    assert READER.recognises(tmp_path / "ecg.csv", text.encode())


@pytest.mark.parametrize("text", ["1.5;-2\n0.25;7\n", "1,5;-2\n0,25;7\n", "\ufeff0,1.5,-2\n1,0.25,7\n",
                                  "ch1,ch2\n1.5,-2\n0.25,7\n", "ms,a,b\n0,1.5,-2\n2,0.25,7\n"])  # fmt: skip
def test_files_that_name_no_lead_need_declared_leads(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    options = ReadOptions(rate_hz=500, unit="mV", leads=("v2", "I"))
    record = READER.read(path, options)
    assert record.leads == ("V2", "I")
    np.testing.assert_array_equal(record.signal_mv, [[1.5, 0.25], [-2, 7]])
    try:
        assert not set(READER.read(path, ReadOptions(rate_hz=500, unit="mV")).leads) & set(LEADS)
    except RecordRefused as refusal:
        assert refusal.reason == "ecg-undeclared"


def test_rate_and_unit_must_be_declared_and_tables_are_not_ecgs(tmp_path: Path) -> None:
    path = write(tmp_path, "I,II\n1,2\n")
    for options in (ReadOptions(unit="mV"), ReadOptions(rate_hz=500), ReadOptions(rate_hz=500, unit="mmHg")):
        with pytest.raises(RecordRefused) as caught:
            READER.read(path, options)
        assert caught.value.reason == "ecg-undeclared"
    assert not READER.recognises(Path("metadata.csv"), b"ECG_ID,Age,Sex\nA1,60,F\n")
    assert not READER.recognises(Path("ecg.txt"), b"I,II\n1,2\n")
    assert READER.recognises(Path("ecg.CSV"), b"0.1;0.2\n")


def test_numbers_survive_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    lines = [",".join(f"L{n}" for n in range(12)), *(",".join(map(str, row)) for row in values.tolist())]
    record = read_csv_ecg(write(tmp_path, "\n".join(lines)), rate_hz=500.0, unit="mV")
    np.testing.assert_array_equal(record.signal_mv, values.T)


@pytest.mark.parametrize(("text", "reason"), [
    ("", "ecg-wrong-structure"),
    ("I,II\n", "ecg-truncated"),
    ("I,I\n1,2\n", "ecg-wrong-structure"),
    ("I,II\n1,2,3\n", "ecg-wrong-structure"),
    ("I,II\n1,2\n1,2,3\n", "ecg-unreadable"),
    ("I,II\n1,two\n", "ecg-unreadable"),
    (b"I,\xff\xfe\n1,2\n", "ecg-unreadable"),
    (",".join(f"c{n}" for n in range(65)) + "\n1\n", "ecg-wrong-structure"),
    ("I,II\n" + "," * 5000 + "\n", "ecg-wrong-structure"),
    ('I\n"\n' + "1," * 3000 + '"\n', "ecg-wrong-structure"),
    ("I\n" + "1," * 2000 + "\n", "ecg-wrong-structure"),
])  # fmt: skip
def test_refusals(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(RecordRefused) as caught:
        read_csv_ecg(write(tmp_path, text), rate_hz=500.0, unit="mV")
    assert caught.value.reason == reason


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=40), cut=st.integers(0, 60), head=st.binary(max_size=6))
def test_mutated_bytes_give_a_record_or_a_refusal(tmp_path: Path, tail: bytes, cut: int, head: bytes) -> None:
    content = head + b"I,II,III\n" + b"1,-2,3.5\n" * 6
    with contextlib.suppress(RecordRefused):
        assert isinstance(
            read_csv_ecg(write(tmp_path, content[:cut] + tail), rate_hz=500.0, unit="mV"), EcgRecord
        )
