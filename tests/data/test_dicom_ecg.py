"""DICOM waveforms: equal to pydicom's own values; the median beat is never taken; typed refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.dicom_ecg import READER, read_dicom_ecg
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused

TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
CODES = dict(zip(LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))
VENDOR = ("Example.dcm", "waveform_ecg.dcm")


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def channel(lead: str, *, unit: str | None = "uV", sensitivity: float | None = 2.5, baseline: float = 0,
            correction: float = 1, code: str = "", meaning: str | None = None) -> Dataset:  # fmt: skip
    source = item(CodeValue=code or f"5.6.3-9-{CODES.get(lead, 99)}", CodingSchemeDesignator="SCPECG",
                  CodeMeaning=f"Lead {lead}" if meaning is None else meaning)  # fmt: skip
    made = item(ChannelSourceSequence=Sequence([source]), WaveformBitsStored=16, ChannelBaseline=baseline,
                ChannelSensitivityCorrectionFactor=correction)  # fmt: skip
    if sensitivity is not None:
        made.ChannelSensitivity = sensitivity
    if unit is not None:
        made.ChannelSensitivityUnitsSequence = Sequence([item(CodeValue=unit, CodingSchemeDesignator="UCUM")])
    return made


def group(counts: np.ndarray, *, label: str = "RHYTHM", leads: tuple[str, ...] = LEADS, rate: float = 500,
          **options: Any) -> Dataset:  # fmt: skip
    """A multiplex group of the counts [L, T]."""
    return item(
        WaveformOriginality=options.pop("originality", "ORIGINAL"),
        NumberOfWaveformChannels=len(counts), NumberOfWaveformSamples=counts.shape[1],
        SamplingFrequency=rate, MultiplexGroupLabel=label, WaveformBitsAllocated=16,
        WaveformSampleInterpretation="SS", WaveformData=counts.T.astype("<i2").tobytes(),
        ChannelDefinitionSequence=Sequence([channel(lead, **options) for lead in leads]),
    )  # fmt: skip


def write(folder: Path, *groups: Dataset, sop_class: str = TWELVE_LEAD,
          syntax: str = ExplicitVRLittleEndian) -> Path:  # fmt: skip
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, "1.2.3"
    meta.TransferSyntaxUID = syntax
    dataset = item(SOPClassUID=sop_class, SOPInstanceUID="1.2.3", PatientName="Some^Body", Modality="ECG",
                   WaveformSequence=Sequence(groups))  # fmt: skip
    dataset.file_meta = meta
    path = folder / "ecg.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def counts(samples: int = 800, leads: int = 12, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 900, (leads, samples))


def refused(path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_dicom_ecg(path)
    return caught.value.reason


@pytest.mark.parametrize("name", VENDOR)
def test_real_files_equal_pydicom_and_the_expected_values(shared_data: Path, name: str) -> None:
    path = shared_data / "ecg" / "vendor" / "dicom" / name
    record = read_dicom_ecg(path)
    dataset = pydicom.dcmread(path)
    np.testing.assert_array_equal(record.signal_mv, (dataset.waveform_array(0).T * 1e-3).astype(np.float32))
    expected = json.loads((shared_data / "expected_vendor.json").read_text())[f"ecg/vendor/dicom/{name}"]
    assert record.leads == LEADS
    assert (record.fs_hz, record.signal_mv.shape[1]) == (expected["fs"], expected["n"])
    for lead, row in zip(record.leads, record.signal_mv.astype(np.float64), strict=True):
        assert np.abs(row).max() == pytest.approx(expected["peak_mV"][lead], abs=6e-5)
        assert np.sqrt((row**2).mean()) == pytest.approx(expected["rms_mV"][lead], abs=6e-6)
    assert READER.recognises(path, path.read_bytes()[:4096])
    assert READER.read(path, ReadOptions()).leads == LEADS


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("unit", "scale"), [("uV", 1e-3), ("mV", 1.0), ("V", 1e3), ("nV", 1e-6)])
def test_value_is_count_by_sensitivity_and_correction_plus_baseline(tmp_path, syntax, unit, scale) -> None:
    raw = counts()
    path = write(tmp_path, group(raw, unit=unit, sensitivity=1.25, correction=2, baseline=7), syntax=syntax)
    record = read_dicom_ecg(path)
    np.testing.assert_allclose(record.signal_mv, (raw * 2.5 + 7) * scale, rtol=1e-6)


def test_the_lowest_count_is_missing(tmp_path: Path) -> None:
    raw = counts()
    raw[3, 5] = -32768
    signal = read_dicom_ecg(write(tmp_path, group(raw))).signal_mv
    assert np.isnan(signal[3, 5]) and np.isnan(signal).sum() == 1


def test_rhythm_is_chosen_by_label_then_originality_then_length(tmp_path: Path) -> None:
    beat, rhythm, other = counts(5000, seed=1), counts(800, seed=2), counts(900, seed=3)
    chosen = [
        [group(beat, label="MEDIAN BEAT"), group(other, label=""), group(rhythm)],
        [group(beat, label="", originality="DERIVED"), group(rhythm, label="")],
        [group(counts(600, seed=4), label=""), group(rhythm, label="")],
        [group(counts(4000, 3), leads=LEADS[:3]), group(rhythm, label="")],
    ]
    for groups in chosen:
        signal = read_dicom_ecg(write(tmp_path, *groups)).signal_mv
        np.testing.assert_allclose(signal, rhythm * 0.0025, rtol=1e-6)
    assert refused(write(tmp_path, group(beat, label="MEDIAN BEAT"))) == "ecg-wrong-structure"
    strips = [group(counts(1250, 3), leads=LEADS[row : row + 3]) for row in (0, 3, 6, 9)]
    assert refused(write(tmp_path, *strips)) == "ecg-wrong-structure"


def test_codes_come_before_what_is_spelt(tmp_path: Path) -> None:
    made = group(counts())
    names = list(made.ChannelDefinitionSequence)
    names[0].ChannelSourceSequence[0].CodeMeaning = "Lead II"
    names[1].ChannelSourceSequence[0].CodeValue = "2:2"
    names[2].ChannelSourceSequence[0].CodeValue = "MDC_ECG_LEAD_III"
    names[3].ChannelSourceSequence[0].CodeValue = "X"
    names[3].ChannelSourceSequence[0].CodeMeaning = "Lead AVR (Goldberger)"
    del names[4].ChannelSourceSequence
    names[4].ChannelLabel = "aVL"
    assert read_dicom_ecg(write(tmp_path, made)).leads == LEADS


def test_refusals(tmp_path: Path) -> None:
    good = group(counts())
    for sop_class in ("9.2.1", "9.1.3"):
        assert refused(write(tmp_path, good, sop_class=f"1.2.840.10008.5.1.4.1.1.{sop_class}")) == (
            "ecg-wrong-structure"
        )
    assert READER.recognises(tmp_path / "x", (tmp_path / "ecg.dcm").read_bytes()[:4096])
    assert refused(write(tmp_path, good, syntax=DeflatedExplicitVRLittleEndian)) == "ecg-unsupported"
    assert refused(write(tmp_path)) == "ecg-wrong-structure"
    assert refused(write(tmp_path, group(counts(), sensitivity=None))) == "ecg-undeclared"
    assert refused(write(tmp_path, group(counts(), unit=None))) == "ecg-undeclared"
    assert refused(write(tmp_path, group(counts(), unit="mm[Hg]"))) == "ecg-wrong-structure"
    assert refused(write(tmp_path, group(counts(), leads=("I", *LEADS[:11])))) == "ecg-wrong-structure"
    assert refused(write(tmp_path, group(counts(), rate=0))) == "ecg-unreadable"
    assert refused(write(tmp_path, group(counts(), leads=LEADS[:11]))) == "ecg-unreadable"
    for keyword, value, reason in (("WaveformSampleInterpretation", "UB", "ecg-unsupported"),
                                   ("NumberOfWaveformSamples", 801, "ecg-truncated"),
                                   ("NumberOfWaveformSamples", 2**31, "ecg-truncated"),
                                   ("NumberOfWaveformSamples", 0, "ecg-unreadable")):  # fmt: skip
        wrong = group(counts())
        setattr(wrong, keyword, value)
        assert refused(write(tmp_path, wrong)) == reason


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, group(counts()))
    content = path.read_bytes()
    path.write_bytes(content[:-3000])
    assert refused(path) in ("ecg-truncated", "ecg-unreadable")
    path.write_bytes(
        content.replace(ExplicitVRLittleEndian.encode() + b"\0", ExplicitVRBigEndian.encode() + b"\0")
    )
    assert refused(path) in ("ecg-unsupported", "ecg-unreadable")
    path.write_bytes(content + b"\xfe\xff\x00\xe0\0\0\0\0" * 20_001)
    assert refused(path) == "ecg-too-large"
    path.write_bytes(bytes(8_000_001))
    assert refused(path) == "ecg-too-large"
    assert refused(tmp_path / "none.dcm") == "ecg-file-missing"


def test_mutated_files_give_a_record_or_a_refusal(shared_data: Path, tmp_path: Path, answer_of) -> None:
    content = (shared_data / "ecg" / "vendor" / "dicom" / VENDOR[0]).read_bytes()
    rng = np.random.default_rng(6)
    path = tmp_path / "wounded.dcm"
    answers = set()
    for case in range(250):
        wounded = bytearray(content)
        for _ in range(int(rng.integers(1, 6))):
            place = int(rng.integers(128, 5000 if rng.random() < 0.9 else len(content)))
            wounded[place] = int(rng.integers(0, 256))
        path.write_bytes(wounded[: int(rng.integers(0, len(wounded)))] if case % 5 == 0 else wounded)
        answers.add(answer_of(read_dicom_ecg, path))
    assert {"read", "ecg-unreadable"} <= answers
