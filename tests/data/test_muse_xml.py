"""GE MUSE XML: the real files against other readers' values; rhythm, never median; counts and checksums."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.data.quality import order_leads
from cardionets_core.data.readers.muse_xml import read_muse_xml
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused

STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
COUNTS = np.random.default_rng(3).integers(-900, 900, (8, 50)).astype("<i2")
COUNTS[0, :2] = (-32768, 32767)


def lead(name: str, counts: np.ndarray, **changed: str) -> str:
    content = counts.tobytes()
    fields = {
        "LeadTimeOffset": "0", "LeadSampleCountTotal": str(len(counts)), "LeadAmplitudeUnitsPerBit": "4.88",
        "LeadAmplitudeUnits": "MICROVOLTS", "LeadID": name, "LeadSampleSize": "2",
        "LeadDataCRC32": str(zlib.crc32(content)),
        "WaveFormData": "\n" + base64.encodebytes(content).decode() + "   ",
    } | changed  # fmt: skip
    return "<LeadData>" + "".join(f"<{key}>{value}</{key}>" for key, value in fields.items()) + "</LeadData>"


def waveform(
    kind: str, leads: str, *, base: str = "500", exponent: str = "0", sampling: str = "CONTINUOUS_SAMPLES"
) -> str:
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType><SampleType>{sampling}</SampleType><SampleBase>{base}"
        f"</SampleBase><SampleExponent>{exponent}</SampleExponent>{leads}</Waveform>"
    )


def leads(**changed: str) -> str:
    return "".join(lead(name, row, **changed) for name, row in zip(STORED, COUNTS, strict=True))


MEDIAN = waveform("Median", "".join(lead(name, COUNTS[0, :6]) for name in STORED), base="250")


def document(*waveforms: str, root: str = "RestingECG") -> str:
    person = "<PatientDemographics><PatientID>secret</PatientID></PatientDemographics>"
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n'
    return f"{head}<{root}>{person}{''.join(waveforms)}</{root}>"


def write(folder: Path, text: str) -> Path:
    path = folder / "muse.xml"
    path.write_text(text, encoding="latin-1")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_muse_xml(path)
    assert caught.value.where == str(path)
    return caught.value.reason


@pytest.mark.parametrize("number", [1, 2, 3])
def test_real_files_agree_with_independent_readers(shared_data: Path, number: int) -> None:
    name = f"ecg/vendor/muse/easyrecg_muse_ecg{number}.xml"
    expected = json.loads((shared_data / "expected_vendor.json").read_text())[name]
    record = read_muse_xml(shared_data / name)
    assert record.leads == STORED and record.flags == frozenset()
    ordered_mv, derived = order_leads(record)
    assert (record.fs_hz, ordered_mv.shape, derived) == (expected["fs"], (12, expected["n"]), 4)
    for lead_name, row in zip(LEADS, ordered_mv, strict=True):
        assert np.abs(row).max() == pytest.approx(expected["peak_mV"][lead_name], abs=5.1e-5)
        assert np.sqrt(np.mean(row**2)) == pytest.approx(expected["rms_mV"][lead_name], abs=5.1e-6)


def test_the_rhythm_is_read_and_the_median_is_not(tmp_path: Path) -> None:
    record = read_muse_xml(write(tmp_path, document(MEDIAN, waveform("Rhythm", leads()))))
    assert record.leads == STORED and record.fs_hz == 500
    np.testing.assert_allclose(record.signal_mv, COUNTS * 4.88e-3, rtol=1e-6)


@pytest.mark.parametrize(("base", "exponent", "rate_hz"), [
    ("5", "2", 500.0), ("2500", "-1", 250.0), ("240", "", 240.0), ("1000", "+0", 1000.0),
])  # fmt: skip
def test_rate_is_base_times_ten_to_the_exponent(
    tmp_path: Path, base: str, exponent: str, rate_hz: float
) -> None:
    text = document(waveform("RHYTHM", leads(), base=base, exponent=exponent))
    assert read_muse_xml(write(tmp_path, text)).fs_hz == rate_hz


def test_units_and_what_may_be_absent(tmp_path: Path) -> None:
    changed = {"LeadAmplitudeUnits": "millivolts", "LeadAmplitudeUnitsPerBit": "0.00488"}
    text = document(waveform("Rhythm", leads(**changed, LeadSampleCountTotal="", LeadDataCRC32="")))
    signal_mv = read_muse_xml(write(tmp_path, text)).signal_mv
    np.testing.assert_allclose(signal_mv, COUNTS * 4.88e-3, rtol=1e-6)
    negative = waveform(
        "Rhythm", lead("I", COUNTS[0], LeadDataCRC32=str(zlib.crc32(COUNTS[0].tobytes()) - 2**32))
    )
    assert read_muse_xml(write(tmp_path, document(negative))).leads == ("I",)


@pytest.mark.parametrize(("text", "reason"), [
    (document(MEDIAN), "ecg-wrong-structure"),
    (document(waveform("Rhythm", leads()), waveform("Rhythm", leads())), "ecg-wrong-structure"),
    (document(waveform("Rhythm", leads()), root="Other"), "ecg-wrong-structure"),
    (document(waveform("Rhythm", "")), "ecg-wrong-structure"),
    (document(waveform("Rhythm", leads() + lead("ii", COUNTS[0]))), "ecg-wrong-structure"),
    (document(waveform("Rhythm", leads(), sampling="MEDIAN")), "ecg-unsupported"),
    (document(waveform("Rhythm", leads(LeadSampleSize="1"))), "ecg-unsupported"),
    (document(waveform("Rhythm", leads(LeadAmplitudeUnits="AMPERE"))), "ecg-unsupported"),
    (document(waveform("Rhythm", leads(LeadAmplitudeUnits=""))), "ecg-undeclared"),
    (document(waveform("Rhythm", lead("I", COUNTS[0]) + lead("II", COUNTS[1], LeadTimeOffset="2500"))),
     "ecg-unsupported"),
    (document(waveform("Rhythm", leads(LeadSampleCountTotal="51"))), "ecg-truncated"),
    (document(waveform("Rhythm", leads(LeadSampleCountTotal="49"))), "ecg-truncated"),
    (document(waveform("Rhythm", leads(WaveFormData="AQID", LeadDataCRC32=""))), "ecg-truncated"),
    (document(waveform("Rhythm", leads(WaveFormData=""))), "ecg-truncated"),
    (document(waveform("Rhythm", lead("I", COUNTS[0]) + lead("II", COUNTS[0, :40]))), "ecg-truncated"),
    (document(waveform("Rhythm", leads(WaveFormData="AQI"))), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(WaveFormData="AQ*D"))), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(LeadDataCRC32="1"))), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(LeadSampleCountTotal="many"))), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(LeadAmplitudeUnitsPerBit="nan"))), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(LeadAmplitudeUnitsPerBit=""))), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(), base="0")), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(), base="500", exponent="9")), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(), base="500", exponent="--1")), "ecg-unreadable"),
    (document(waveform("Rhythm", leads(), base="500", exponent="1" * 5000)), "ecg-unreadable"),
    (document(waveform("Rhythm", leads()))[:-5], "ecg-truncated"),
])  # fmt: skip
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(write(tmp_path, text)) == reason


def test_an_absent_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.xml") == "ecg-file-missing"
