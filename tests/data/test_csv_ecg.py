"""CSV: unit and rate come from the site; hostile bytes give a typed refusal."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.readers.csv_ecg import read_csv_ecg
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "ecg.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_become_rows_in_millivolts(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffi,MDC_ECG_LEAD_II, avr ,time\r\n1000,2,3,0\r\n-5,,7,1\r\n")
    record = read_csv_ecg(path, rate_hz=400.0, unit="uV")
    assert record.leads == ("I", "II", "aVR", "time") and record.fs_hz == 400
    np.testing.assert_allclose(
        record.signal_mv[:3], [[1, -0.005], [0.002, np.nan], [0.003, 0.007]], rtol=1e-6
    )


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
