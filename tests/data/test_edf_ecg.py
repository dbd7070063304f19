"""EDF: what pyedflib writes is read back; labels, units and ranges; typed refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyedflib
import pytest

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.edf_ecg import READER, read_edf
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused


def signals(samples: int = 2000) -> np.ndarray:
    return np.cumsum(np.random.default_rng(3).normal(0, 0.02, (12, samples)), axis=1)


def write(folder: Path, rows: np.ndarray, *, labels: tuple[str, ...] = tuple(f"ECG {lead}" for lead in LEADS),
          unit: str = "mV", rates: tuple[int, ...] = (500,) * 12, plus: bool = True) -> Path:  # fmt: skip
    path = folder / "ecg.edf"
    heads = [
        {"label": label, "dimension": unit, "sample_frequency": rate, "transducer": "", "prefilter": "",
         "physical_min": -5.0, "physical_max": 5.0, "digital_min": -32768, "digital_max": 32767}
        for label, rate in zip(labels, rates, strict=True)
    ]  # fmt: skip
    kind = pyedflib.FILETYPE_EDFPLUS if plus else pyedflib.FILETYPE_EDF
    with pyedflib.EdfWriter(str(path), len(labels), file_type=kind) as writer:
        writer.setPatientName("Some_Body")
        writer.setSignalHeaders(heads)
        writer.writeSamples([row[: len(row) * rate // 500] for row, rate in zip(rows, rates, strict=True)])
    return path


def patched(path: Path, place: int, text: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[place : place + len(text)] = text
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_edf(path)
    return caught.value.reason


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize(("unit", "scale"), [("mV", 1.0), ("uV", 1e-3), ("V", 1e3)])
def test_equals_what_pyedflib_reads(tmp_path: Path, plus: bool, unit: str, scale: float) -> None:
    path = write(tmp_path, signals(), unit=unit, plus=plus)
    record = read_edf(path)
    assert record.leads == LEADS and record.fs_hz == 500 and record.signal_mv.shape == (12, 2000)
    with pyedflib.EdfReader(str(path)) as library:
        expected = np.stack([library.readSignal(row) for row in range(12)])
    np.testing.assert_allclose(record.signal_mv, expected * scale, atol=1e-6 * scale)
    assert READER.recognises(Path("x"), path.read_bytes()[:4096])
    assert READER.read(path, ReadOptions()).leads == LEADS


def test_other_signals_are_left_out_and_labels_are_understood(tmp_path: Path) -> None:
    rows = signals()
    labels = ("II", "EKG aVR", "SpO2", "Lead V1", "ecg avl")
    record = read_edf(write(tmp_path, rows[:5], labels=labels, rates=(500, 500, 100, 500, 500)))
    assert record.leads == ("II", "aVR", "V1", "aVL")
    np.testing.assert_allclose(record.signal_mv, rows[[0, 1, 3, 4]], atol=10 / 65535)


def test_a_recorder_that_was_still_running_gives_its_whole_records(tmp_path: Path) -> None:
    path = patched(write(tmp_path, signals()), 236, b"-1      ")
    assert read_edf(path).signal_mv.shape == (12, 2000)
    path.write_bytes(path.read_bytes()[:-100])
    assert read_edf(path).signal_mv.shape == (12, 1500)


def test_refusals(tmp_path: Path) -> None:
    rows = signals()
    assert (
        refused(write(tmp_path, rows, labels=tuple(f"EEG {n}" for n in range(12)))) == "ecg-wrong-structure"
    )
    assert refused(write(tmp_path, rows, labels=("ECG I", "I", *LEADS[2:]))) == "ecg-wrong-structure"
    assert refused(write(tmp_path, rows, rates=(250, *(500,) * 11))) == "ecg-wrong-structure"
    assert refused(write(tmp_path, rows, unit="mmHg")) == "ecg-wrong-structure"
    path = write(tmp_path, rows)
    whole = path.read_bytes()
    for place, text, reason in ((192, b"EDF+D", "ecg-unsupported"), (0, b"1", "ecg-unreadable"),
                                (236, b"5       ", "ecg-truncated"), (236, b"0       ", "ecg-truncated"),
                                (252, b"11  ", "ecg-unreadable"), (252, b"9999", "ecg-unreadable"),
                                (244, b"0       ", "ecg-unreadable"), (244, b"nan     ", "ecg-unreadable"),
                                (236, b"99999999", "ecg-truncated")):  # fmt: skip
        path.write_bytes(whole)
        assert refused(patched(path, place, text)) == reason, text
    for length, reason in (
        (100, "ecg-truncated"),
        (1000, "ecg-truncated"),
        (len(whole) - 1, "ecg-truncated"),
    ):
        path.write_bytes(whole[:length])
        assert refused(path) == reason
    path.write_bytes(whole[:1] + bytes(16_000_000))
    assert refused(path) == "ecg-too-large"
    assert refused(tmp_path / "none.edf") == "ecg-file-missing"


def test_mutated_files_give_a_record_or_a_refusal(tmp_path: Path, answer_of) -> None:
    path = write(tmp_path, signals())
    whole = path.read_bytes()
    rng = np.random.default_rng(8)
    answers = set()
    for case in range(300):
        wounded = bytearray(whole)
        for _ in range(int(rng.integers(1, 6))):
            place = int(rng.integers(0, 256 * 14))
            wounded[place] = int(rng.choice([*b"0123456789-. eE", *rng.integers(0, 256, 4)]))
        path.write_bytes(wounded[: int(rng.integers(0, len(wounded)))] if case % 5 == 0 else wounded)
        answers.add(answer_of(read_edf, path))
    assert {"read", "ecg-truncated", "ecg-unreadable"} <= answers
