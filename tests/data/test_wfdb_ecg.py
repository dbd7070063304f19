"""WFDB: equal to the wfdb library on every open record; hostile bytes give a typed refusal."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing it warns under pandas 3
    import wfdb

HEADER = """rec 2 500 2500
rec.dat 16 1000(0)/mV 16 0 1 0 0 I
rec.dat 16 1000(0)/mV 16 0 1 0 0 II
"""


def write(folder: Path, header: str = HEADER, *, samples: int = 2500, name: str = "rec") -> Path:
    counts = np.arange(samples * 2).reshape(samples, 2) % 300
    (folder / f"{name}.hea").write_text(header)
    (folder / "rec.dat").write_bytes(counts.astype("<i2").tobytes())
    return folder / f"{name}.hea"


@pytest.mark.parametrize(("dataset", "number"), [
    ("ecg/georgia", 12), ("ecg/ningbo", 12), ("ecg/ptbxl_challenge", 10), ("ecg/cpsc", 8),
    ("ecg/ptbxl_native", 20), ("ecg/ptb", 1), ("replicas/mimic_iv_ecg", 8),
])  # fmt: skip
def test_equals_the_wfdb_library_on_every_record(shared_data: Path, dataset: str, number: int) -> None:
    headers = sorted((shared_data / dataset).rglob("*.hea"))
    assert len(headers) == number
    for header in headers:
        expected = wfdb.rdrecord(str(header.with_suffix("")))
        record = read_wfdb(header)
        assert record.fs_hz == expected.fs
        np.testing.assert_array_equal(record.signal_mv, expected.p_signal.T.astype(np.float32))


def test_ptb_keeps_fifteen_signals_and_spells_twelve_as_leads(shared_data: Path) -> None:
    record = read_wfdb(shared_data / "ecg" / "ptb" / "s0010_re.hea")
    assert record.leads == (*LEADS, "vx", "vy", "vz")
    assert record.fs_hz == 1000 and record.signal_mv.shape == (15, 38400)


def test_mimic_replica_within_half_a_count(shared_data: Path) -> None:
    headers = sorted((shared_data / "replicas" / "mimic_iv_ecg").rglob("*.hea"))
    for header in headers:
        record = read_wfdb(header)
        truth = np.load(shared_data / "replicas" / f"_truth_mimic_{header.stem}.npz")
        assert record.leads[4:6] == ("aVF", "aVL")
        ordered = record.signal_mv[[record.leads.index(str(lead)) for lead in truth["leads"]]]
        assert tuple(truth["leads"]) == LEADS
        np.testing.assert_array_equal(np.isnan(ordered), np.isnan(truth["mV"].T))
        assert np.nanmax(np.abs(ordered - truth["mV"].T)) <= 0.0026
    assert len(headers) == 8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [
    "200.0(0)/mV", "1000(-512)/mV", "163.934/mV", "4880.4(77)/mV", "0.1(32767)/mV", "1e-9/mV", "99999999/mV",
    "200(99999999)/mV", "-200/mV",
])  # fmt: skip
def test_every_count_is_scaled_as_by_the_wfdb_library(tmp_path: Path, scale: str) -> None:
    """All 65,536 counts: dividing in float32 must round as dividing in float64 and rounding then."""
    (tmp_path / "rec.hea").write_text(f"rec 1 500 65536\nrec.dat 16 {scale} 16 0 0 0 0 I\n")
    (tmp_path / "rec.dat").write_bytes(np.arange(-(2**15), 2**15).astype("<i2").tobytes())
    expected = wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T.astype(np.float32)
    np.testing.assert_array_equal(read_wfdb(tmp_path / "rec.hea").signal_mv, expected)


@pytest.mark.parametrize("line", [
    "rec.dat 2 500 2500", "rec 2 500 2500 12-May-2020 12:33:59", "other 2 500 2500", "rec 2 500/500(0) 2500",
    "rec 2 500 2500 23:53:00 24/06/2177", "rec 2 500",
])  # fmt: skip
def test_record_lines_that_stray_are_read(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, HEADER.replace("rec 2 500 2500", line, 1))
    record = read_wfdb(path)
    assert record.fs_hz == 500 and record.signal_mv.shape == (2, 2500)
    assert record.signal_mv[1, 0] == np.float32(0.001)


def test_comments_and_what_they_say_of_the_person_are_not_read(tmp_path: Path) -> None:
    remarks = "# Age: NaN\n#Sex: Unknown\n# Dx: \n#Name: \xff\n"
    plain = read_wfdb(write(tmp_path)).signal_mv
    path = write(tmp_path, remarks.replace("\xff", "x") + HEADER + remarks.replace("\xff", "x"))
    np.testing.assert_array_equal(read_wfdb(path).signal_mv, plain)
    path.write_bytes((HEADER + remarks).encode("latin-1"))
    np.testing.assert_array_equal(read_wfdb(path).signal_mv, plain)


def test_two_signal_files_are_joined_in_the_order_of_the_header(tmp_path: Path) -> None:
    lines = HEADER.splitlines()
    path = write(
        tmp_path, "\n".join([lines[0], lines[1], lines[2].replace("rec.dat", "two.xyz")]), samples=5000
    )
    (tmp_path / "rec.dat").write_bytes(np.arange(2500, dtype="<i2").tobytes())
    (tmp_path / "two.xyz").write_bytes((-np.arange(2500, dtype="<i2")).tobytes())
    signal = read_wfdb(path).signal_mv
    np.testing.assert_array_equal(signal[0], -signal[1])
    (tmp_path / "two.xyz").write_bytes(bytes(4998))
    with pytest.raises(RecordRefused) as caught:
        read_wfdb(path)
    assert caught.value.reason == "ecg-truncated"


@pytest.mark.parametrize(("unit", "scale"), [("mV", 1.0), ("mv", 1.0), ("uV", 1e-3)])
def test_units_become_millivolts(tmp_path: Path, unit: str, scale: float) -> None:
    record = read_wfdb(write(tmp_path, HEADER.replace("/mV", f"/{unit}")))
    np.testing.assert_allclose(record.signal_mv[1, :3], np.array([1, 3, 5]) / 1000 * scale, rtol=1e-6)


def test_the_digital_minimum_is_a_missing_sample(tmp_path: Path) -> None:
    path = write(tmp_path)
    counts = np.zeros((2500, 2), dtype="<i2")
    counts[7, 1] = -32768
    (tmp_path / "rec.dat").write_bytes(counts.tobytes())
    signal = read_wfdb(path).signal_mv
    assert np.isnan(signal[1, 7]) and np.isnan(signal).sum() == 1


@pytest.mark.filterwarnings("ignore")  # writing with the library warns under pandas 3
def test_other_formats_go_through_the_library(tmp_path: Path) -> None:
    signal = np.sin(np.arange(2000) / 20)[:, None] * [[0.5, 1.0]]
    wfdb.wrsamp(
        "packed",
        fs=500,
        units=["mV", "mV"],
        sig_name=["I", "II"],
        p_signal=signal,
        fmt=["212", "212"],
        write_dir=str(tmp_path),
    )
    expected = wfdb.rdrecord(str(tmp_path / "packed")).p_signal.T
    np.testing.assert_array_equal(read_wfdb(tmp_path / "packed.hea").signal_mv, expected.astype(np.float32))


@pytest.mark.parametrize(("change", "reason"), [
    (("rec.dat 16", "none.dat 16"), "ecg-file-missing"),
    (("rec.dat 16", "../rec.dat 16"), "ecg-unreadable"),
    (("rec.dat 16", "s3://bucket/rec.dat 16"), "ecg-unreadable"),
    (("rec 2", "rec/3 2"), "ecg-unreadable"),
    (("500 2500", "500 2501"), "ecg-truncated"),
    (("500 2500", "500 999999999999"), "ecg-truncated"),
    (("500 2500", "0 2500"), "ecg-unreadable"),
    (("rec 2", "rec 3"), "ecg-unreadable"),
    (("/mV", "/mmHg"), "ecg-wrong-structure"),
    (("dat 16", "dat 516"), "ecg-unsupported"),
    (("dat 16", "dat 212"), ""),
])  # fmt: skip
def test_refusals(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    path = write(tmp_path, HEADER.replace(*change))
    if not reason:
        assert read_wfdb(path).signal_mv.shape == (2, 2500)
        return
    with pytest.raises(RecordRefused) as caught:
        read_wfdb(path)
    assert caught.value.reason == reason


def test_missing_and_huge_headers(tmp_path: Path) -> None:
    with pytest.raises(RecordRefused, match="not there"):
        read_wfdb(tmp_path / "none.hea")
    (tmp_path / "big.hea").write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecordRefused) as caught:
        read_wfdb(tmp_path / "big.hea")
    assert caught.value.reason == "ecg-too-large"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_bytes_give_a_record_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    header = bytearray(HEADER.encode())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(header) - 1))
        header[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = write(tmp_path, samples=data.draw(st.integers(0, 2600)))
    path.write_bytes(bytes(header[: data.draw(st.integers(0, len(header)))]))
    try:
        record = read_wfdb(path)
    except RecordRefused:
        return
    assert isinstance(record, EcgRecord)
    assert record.signal_mv.dtype == np.float32 and len(record.leads) == len(record.signal_mv)
