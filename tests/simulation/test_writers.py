"""Files read back by other people's readers hold what was drawn, within quantisation, traps included."""

from __future__ import annotations

import ast
import csv
import io
import warnings
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from cardionets_core.config.read import parse_document
from cardionets_core.data.records import LEADS
from simulation.patients import draw_patient
from simulation.scenario import DrawnHospital, Scenario
from simulation.writers import LAYOUTS
from simulation.writers.local_site import TRUNCATED, csv_text
from simulation.writers.mimic_iv_ecg import ABSENT_FILE, LEAD_ORDER, ZERO_LEAD
from simulation.writers.uk_biobank import CUT_OFF, WITHDRAWN, eid_of

with warnings.catch_warnings():
    # wfdb 4.3.1 calls pandas in a way that pandas 3 deprecates.
    warnings.simplefilter("ignore")
    import wfdb

SCANNER = {"spacing_mm": 2.1, "pixels": 90, "frames": 20}


def _scenario(layout: str, **cart: object) -> Scenario:
    return parse_document(
        Scenario,
        {
            "name": "tiny",
            "seed": 11,
            "hospitals": [
                {
                    "site": "one",
                    "layout": layout,
                    "patients": 40,
                    "repeat_share": 0.6,
                    "prevalence": {"hf": 0.4, "cm": 0.4},
                    "cart": cart,
                    "scanner": SCANNER,
                }
            ],
            "study": {"name": "tiny", "phases": [{"task": "probe", "rounds": 1}]},
        },
        where="test",
    )


def _write(scenario: Scenario, folder: Path, *patients: int) -> dict[int, object]:
    hospital = scenario.hospitals[0]
    assert isinstance(hospital, DrawnHospital)
    drawn, rows = {}, {}
    for index in patients:
        drawn[index] = draw_patient(scenario, "one", index)
        for name, found in LAYOUTS[hospital.layout].write_patient(folder, drawn[index], hospital).items():
            rows.setdefault(name, []).extend(found)
    LAYOUTS[hospital.layout].write_tables(folder, rows)
    return drawn


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_biobank_xml_is_cardiosoft_and_holds_the_signal(tmp_path):
    drawn = _write(_scenario("uk_biobank"), tmp_path, 0)
    path = tmp_path / "20205" / f"{eid_of(0)}_20205_2_0.xml"
    raw = path.read_bytes()
    assert raw.startswith(b'<?xml version="1.0" encoding="ISO8859-1" ?>\r\n')
    assert raw.count(b"\n") == raw.count(b"\r\n")
    root = ElementTree.fromstring(raw)
    assert root.findtext("ObservationType") == "RestECG"
    everything = root.findall(".//WaveformData")
    assert len(everything) == 24, "twelve median beats stand before the rhythm"
    strip = root.find("StripData")
    assert strip.findtext("Resolution") == "5"
    assert strip.find("Resolution").get("units") == "uVperLsb"
    assert strip.findtext("ChannelSampleCountTotal") == "5000"
    rows = strip.findall("WaveformData")
    assert [row.get("lead") for row in rows] == list(LEADS)
    assert all("\n" in row.text and "\t" in row.text for row in rows)
    signal = np.array([[int(word) for word in row.text.split(",")] for row in rows]) * 0.005
    assert np.abs(signal - drawn[0].visits[0].ecg.signal_mv).max() <= 0.0025 + 1e-5
    median = root.findall("RestingECGMeasurements/MedianSamples/WaveformData")
    assert {len(row.text.split(",")) for row in median} == {600}
    beats = [int(time.text) for time in strip.findall("ArrhythmiaResults/Time")]
    heart_rate = drawn[0].visits[0].heart.heart_rate_bpm
    assert 60_000 / np.mean(np.diff(beats)) == pytest.approx(heart_rate, rel=0.06)


def test_one_biobank_xml_is_cut_off(tmp_path):
    _write(_scenario("uk_biobank"), tmp_path, CUT_OFF)
    with pytest.raises(ElementTree.ParseError):
        ElementTree.parse(tmp_path / "20205" / f"{eid_of(CUT_OFF)}_20205_2_0.xml")


def test_biobank_zip_holds_the_cine_among_other_things(tmp_path):
    patients = (2, 4, 7)  # with a 2-chamber series, with burnt-in contours, with an interrupted series
    drawn = _write(_scenario("uk_biobank"), tmp_path, *patients)
    seen = set()
    for index in patients:
        with zipfile.ZipFile(tmp_path / "20208" / f"{eid_of(index)}_20208_2_0.zip") as archive:
            names = archive.namelist()
            manifest = archive.read("manifest.cvs").decode()
            files = [
                pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names if name.endswith(".dcm")
            ]
        lines = manifest.splitlines()
        assert "study discription" in lines[0]
        assert len(lines) == len(files) + 1
        assert {line.count(",") for line in lines[1:]} == {lines[0].count(",") + 1}, "a comma in the date"
        assert str(eid_of(index)) not in manifest
        seen |= {file.SeriesDescription for file in files}
        wanted = [file for file in files if file.SeriesDescription == "CINE_segmented_LAX_4Ch"]
        last = max(file.SeriesNumber for file in wanted)
        wanted = [file for file in wanted if file.SeriesNumber == last]
        assert [file.InstanceNumber for file in wanted] != sorted(file.InstanceNumber for file in wanted)
        wanted.sort(key=lambda file: file.TriggerTime)
        stack = drawn[index].visits[0].cine.stack
        np.testing.assert_array_equal(np.stack([file.pixel_array for file in wanted]), stack.pixels)
        assert [file.InstanceNumber for file in wanted] == list(range(1, 21))
        assert float(wanted[1].TriggerTime) == pytest.approx(stack.frame_ms, abs=1e-3)
        assert tuple(map(float, wanted[0].PixelSpacing)) == stack.spacing_mm
        assert wanted[0].CardiacNumberOfImages == 20
        assert len({file.SOPInstanceUID for file in files}) == len(files)
        assert all(file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID for file in files)
        assert all(len(file.SOPInstanceUID) <= 64 and file.SOPInstanceUID.is_valid for file in files)
    assert seen == {"CINE_segmented_LAX_4Ch", "CINE_segmented_LAX_2Ch", "CINE_segmented_LAX_InlineVF"}


def test_biobank_tables(tmp_path):
    drawn = _write(_scenario("uk_biobank"), tmp_path, *range(8))
    rows = {row["eid"]: row for row in _table(tmp_path / "phenotypes.csv")}
    assert len(rows) == 8
    for index, patient in drawn.items():
        for visit in patient.visits:
            row = rows[str(eid_of(index))]
            found = {
                int(name[:5]): float(value)
                for name, value in row.items()
                if name.startswith("24") and name.endswith(f"-{2 + visit.number}.0") and value
            }
            assert found == visit.phenotypes
    assert any(len(patient.visits) == 2 for patient in drawn.values())
    assert any(row["icd10"].startswith(("I42", "I50")) for row in _table(tmp_path / "diagnoses.csv"))
    lists = sorted(path.name for path in (tmp_path / "withdrawals").iterdir())
    assert lists[-1] == "w99001_20230425.csv"
    assert (tmp_path / "withdrawals" / lists[-1]).read_text().split() == [str(eid_of(WITHDRAWN)), "9999999"]


def test_mimic_records_are_read_by_wfdb_with_avf_before_avl(tmp_path):
    drawn = _write(_scenario("mimic_iv_ecg"), tmp_path, *range(12))
    listed = _table(tmp_path / "record_list.csv")
    assert len(listed) > 12
    visits = {
        49_000_000 + 16 * index + visit.number: visit
        for index, patient in drawn.items()
        for visit in patient.visits
    }
    assert LEAD_ORDER.index("aVF") < LEAD_ORDER.index("aVL")
    absent = [row for row in listed if not (tmp_path / f"{row['path']}.dat").exists()]
    assert [int(row["study_id"]) for row in absent] == [49_000_000 + 16 * ABSENT_FILE]
    for row in listed:
        study = int(row["study_id"])
        assert row["path"].startswith(f"files/p{row['subject_id'][:4]}/p{row['subject_id']}/s{study}/")
        if row in absent:
            continue
        record = wfdb.rdrecord(tmp_path / row["path"], physical=False)
        assert record.sig_name == list(LEAD_ORDER)
        assert record.adc_gain == [200.0] * 12
        assert record.checksum == [
            int(total) % 65536 for total in record.d_signal.sum(axis=0, dtype=np.int64)
        ]
        assert record.init_value == record.d_signal[0].tolist()
        ecg = visits[study].ecg
        truth = ecg.signal_mv[[ecg.leads.index(lead) for lead in LEAD_ORDER]]
        good = (record.d_signal.T != -32768) & (record.d_signal.T != 0)
        assert np.abs(record.d_signal.T / 200.0 - truth)[good].max() <= 0.0025 + 1e-5
        if study == 49_000_000 + 16 * ZERO_LEAD:
            assert not record.d_signal[:, LEAD_ORDER.index("V3")].any()


def test_mimic_tables_hold_lists_as_text_and_sentinels(tmp_path):
    _write(_scenario("mimic_iv_ecg"), tmp_path, *range(40))
    rows = _table(tmp_path / "records_w_diag_icd10.csv")
    lists = [ast.literal_eval(row["all_diag_all"]) for row in rows]
    assert [] in lists
    assert any("I50" in code for codes in lists for code in codes)
    assert not any("." in code for codes in lists for code in codes)
    assert all(row["file_name"].endswith(row["study_id"]) for row in rows)
    machine = _table(tmp_path / "machine_measurements.csv")
    cells = {cell for row in machine for cell in row.values()}
    assert cells & {"29999", "32767", "-32768", "65535"}


def test_some_mimic_records_hold_missing_samples(tmp_path):
    _write(_scenario("mimic_iv_ecg"), tmp_path, *range(40))
    counts = [np.fromfile(path, dtype="<i2") for path in sorted(tmp_path.rglob("*.dat"))]
    assert 1 <= sum((values == -32768).any() for values in counts) < 0.15 * len(counts)


def test_local_wfdb_and_nifti_read_back(tmp_path):
    scenario = _scenario("local_wfdb", rate_hz=1000)
    drawn = _write(scenario, tmp_path, *range(4))
    index = _table(tmp_path / "index.csv")
    assert len(index) == sum(len(patient.visits) for patient in drawn.values())
    visits = [visit for patient in drawn.values() for visit in patient.visits]
    broken = sum(len(drawn[earlier].visits) for earlier in range(TRUNCATED))
    for row, (place, visit) in zip(index, enumerate(visits), strict=True):
        if row["cine"]:
            image = nibabel.load(tmp_path / "cmr" / row["cine"])
            assert image.shape == (90, 90, 1, 20)
            assert image.header.get_xyzt_units() == ("mm", "msec")
            assert image.header.get_zooms()[:2] == pytest.approx((2.1, 2.1))
            assert float(image.header.get_zooms()[3]) == pytest.approx(visit.cine.stack.frame_ms, rel=1e-5)
            read = np.asarray(image.dataobj)[:, :, 0].transpose(2, 1, 0)
            np.testing.assert_array_equal(read, visit.cine.stack.pixels)
        if row["ecg"] and place != broken:
            record = wfdb.rdrecord(tmp_path / "ecg" / row["ecg"].removesuffix(".hea"))
            assert (record.fs, record.sig_name, record.units[0]) == (1000, list(LEADS), "mV")
            assert np.abs(record.p_signal.T - visit.ecg.signal_mv).max() <= 0.0005 + 1e-5
    assert (tmp_path / "ecg" / index[broken]["ecg"]).with_suffix(".dat").stat().st_size < 30_000


def test_local_csv_reads_back_and_one_file_is_cut_off(tmp_path):
    scenario = _scenario("local_csv", rate_hz=250, lowpass_hz=100)
    drawn = _write(scenario, tmp_path, 0, TRUNCATED)
    first, *_, _ = _table(tmp_path / "index.csv")
    text = (tmp_path / "ecg" / first["ecg"]).read_text()
    assert text == csv_text(drawn[0].visits[0].ecg)
    assert text.splitlines()[0] == ",".join(LEADS)
    values = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1)
    assert np.abs(values.T / 1000 - drawn[0].visits[0].ecg.signal_mv).max() <= 0.0005 + 1e-5
    sizes = sorted(path.stat().st_size for path in (tmp_path / "ecg").iterdir())
    assert sizes[0] < 0.4 * sizes[-1]
    phenotypes = _table(tmp_path / "phenotypes.csv")
    assert float(phenotypes[0]["f24100"] or "nan") == drawn[0].visits[0].phenotypes.get(24100, np.nan)
