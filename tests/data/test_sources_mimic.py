"""MIMIC-IV-ECG: the record list, its tables with their sentinels, and what is counted of their doubts."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.records import DISEASES, EcgRecord, Person
from cardionets_core.data.sources import open_source
from cardionets_core.data.sources.mimic_iv_ecg import MimicIvEcgSource
from cardionets_core.errors import FolderMissingError, RecordRefused, SourceInvalidError

MACHINE = "subject_id,study_id,cart_id,ecg_time,report_0,rr_interval,p_onset,p_axis,t_axis\n"


def source(**content: Any) -> MimicIvEcgSource:
    opened = open_source(
        SiteConfig(site="here", source={"kind": "mimic_iv_ecg", **content}, policy={"phases": ["ecg_mae"]})
    )
    assert isinstance(opened, MimicIvEcgSource)
    return opened


def tree(folder: Path, *rows: str) -> Path:
    text = "subject_id,study_id,ecg_time,path\n" + "".join(f"{row}\n" for row in rows)
    (folder / "record_list.csv").write_text(text)
    return folder


def test_the_replica_lists_eight_studies_of_five_subjects(shared_data: Path) -> None:
    root = shared_data / "replicas" / "mimic_iv_ecg"
    opened = source(root=root)
    recordings = opened.recordings()
    assert len(recordings) == 8 and len({r.patient for r in recordings}) == 5
    assert len({r.visit for r in recordings}) == 8 and opened.refusals == {}
    for recording in recordings:
        assert [path.suffix for path in opened.parts(recording)] == [".hea", ".dat"]
        assert isinstance(opened.read(recording), EcgRecord)
    assert [path.name for _, path in opened.tables()] == [
        "record_list.csv", "machine_measurements.csv", "waveform_note_links.csv",
    ]  # fmt: skip


def test_the_replica_s_measurements_are_those_of_the_table_without_sentinels(shared_data: Path) -> None:
    root = shared_data / "replicas" / "mimic_iv_ecg"
    opened = source(root=root)
    sentinels = 0
    with (root / "machine_measurements.csv").open() as stream:
        for row in csv.DictReader(stream):
            found = opened.measurements(row["study_id"])
            assert len(found) == 9
            for name, value in found.items():
                text = row[name.rsplit("_", 1)[0]]
                if text in ("29999", "32767", "-32768", "65535"):
                    sentinels += 1
                    assert math.isnan(value)
                elif text:
                    assert value == np.float32(text)
                else:
                    assert math.isnan(value)
    assert sentinels > 0 and opened.notes["measurement-sentinel"] == sentinels
    assert opened.notes["time-differs"] == 1, "the replica's shifted clock"
    assert opened.measurements("1") == {} == opened.measurements("no number")


def test_persons_of_the_extension_s_table(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "replicas" / "mimic_iv_ecg"
    (tmp_path / "icd.csv").write_text(
        "file_name,study_id,subject_id,all_diag_all,gender,age,anchor_age\n"
        "mimic-iv-ecg-1.0/a,49000001,90000011,\"['I5023', 'E785', 'I272X']\",missing,63.0,60\n"
        "mimic-iv-ecg-1.0/b,49000002,90000011,[],M,93,91\n"
        "mimic-iv-ecg-1.0/c,49000004.0,90000024,\"['Z000']\",F,,\n"
        "mimic-iv-ecg-1.0/d,49000005,90000024,__import__('os'),F,-3,40\n"
        "mimic-iv-ecg-1.0/d,49000005,90000024,['I251'],F,-3,40\n"
        "mimic-iv-ecg-1.0/f,49000008,90000024,\"['I420', 'I10']\",F,,\n"
        "mimic-iv-ecg-1.0/f,49000008,90000024,['I4210'],F,,\n"
        "mimic-iv-ecg-1.0/g,49000009,90000024,['I425'],F,,\n"
        "mimic-iv-ecg-1.0/e,49000006,90010037,['I50'],F,93,91\n"
    )
    (tmp_path / "gone.csv").write_text("90010037\n")
    opened = source(root=root, diagnoses=tmp_path / "icd.csv", withdrawals=tmp_path / "gone.csv")
    assert opened.person("90000011", "49000001") == Person(diseases={"hf": 1.0, "ph": 1.0}, age_years=63.0)
    assert opened.person("90000011", "49000002") == Person(sex="M"), "none recorded is not healthy"
    assert opened.person("90000024", "49000004") == Person(diseases=dict.fromkeys(DISEASES, 0.0), sex="F")
    assert opened.person("90000024", "49000005").diseases == {"cad": 1.0}, "rows of one study add up"
    assert opened.person("90000024", "49000008").diseases == {"cm": 1.0}, "two kinds: none is known"
    stiff = {"cm": 1.0, "rcm": 1.0, "dcm": 0.0, "hcm": 0.0}
    assert opened.person("90000024", "49000009").diseases == stiff
    assert opened.person("90000024", "49000007") == Person()
    assert opened.person("90010037", "49000006") == Person()
    assert opened.notes["age-over-89"] == 1 and opened.notes["age-implausible"] == 2
    assert "90010037" not in {r.patient for r in opened.recordings()}
    assert opened.refusals == {"withdrawn": 1}


def test_doubts_between_the_tables_are_counted(tmp_path: Path) -> None:
    when = "2150-01-01 00:00:00"
    tree(tmp_path, f"1,11,{when},files/a", f"1,12,{when},files/b", f"1,11,{when},files/a", f"2.0,13,{when},c")
    (tmp_path / "machine_measurements.csv").write_text(
        MACHINE + f"1,11,7,{when},Sinus rhythm,65535,29999,32767,-32768\n"
        "1,12,7,2150-01-01 01:00:00,Sinus,800,,60,x\n9,99,7,2150-01-01 01:00:00,,1,2,3,4\n"
    )
    (tmp_path / "waveform_note_links.csv").write_text(
        "study_id,note_id\n11,a\n11,b\n12,c\n11,d\n13,e\n13,f\n"
    )
    opened = source(root=tmp_path)
    assert [(r.patient, r.visit) for r in opened.recordings()] == [("1", "11"), ("1", "12"), ("2", "13")]
    assert all(math.isnan(value) for value in opened.measurements("11").values())
    rest = opened.measurements("12")
    assert (rest["rr_interval_ms"], rest["p_axis_degrees"]) == (800, 60) and math.isnan(
        rest["t_axis_degrees"]
    )
    opened.recordings()
    assert opened.notes == {
        "measurement-sentinel": 4, "time-differs": 1, "two-notes": 2, "row-repeated": 1,
    }  # fmt: skip


def test_tables_without_rows_say_nothing(tmp_path: Path) -> None:
    tree(tmp_path, "1,11,,files/a")
    (tmp_path / "machine_measurements.csv").write_text(MACHINE)
    (tmp_path / "waveform_note_links.csv").write_text("study_id,note_id\n")
    (tmp_path / "icd.csv").write_text("study_id,all_diag_all\n")
    opened = source(root=tmp_path, diagnoses=tmp_path / "icd.csv")
    assert opened.person("1", "11") == Person() and opened.measurements("11") == {}
    assert opened.notes == {}


def test_records_that_are_absent_or_lead_out_of_the_tree(tmp_path: Path) -> None:
    opened = source(
        root=tree(tmp_path, "1,11,,files/a", "1,12,,../../etc/passwd", "1,13,,/etc/passwd", "1,14,,")
    )
    (listed,) = opened.recordings()
    assert opened.refusals == {"ecg-file-missing": 3}
    assert opened.parts(listed) == []
    with pytest.raises(RecordRefused) as caught:
        opened.read(listed)
    assert caught.value.reason == "ecg-file-missing"


def test_layout_errors_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(FolderMissingError, match=r"(?s)record_list.*source\.root"):
        source(root=tmp_path).recordings()
    (tmp_path / "record_list.csv").write_text("subject,path\n1,a\n")
    with pytest.raises(SourceInvalidError, match="subject_id"):
        source(root=tmp_path).recordings()
    with pytest.raises(SourceInvalidError, match="names no record"):
        source(root=tree(tmp_path)).recordings()
    with pytest.raises(SourceInvalidError, match="two subjects"):
        source(root=tree(tmp_path, "1,11,,a", "2,11,,b")).recordings()
    (tmp_path / "machine_measurements.csv").write_text(MACHINE + "1,secret,7,,,,,,\n")
    with pytest.raises(SourceInvalidError, match=r"(?s)study_id.*source\.root") as caught:
        source(root=tmp_path).measurements("1")
    assert "secret" not in str(caught.value)
    with pytest.raises(FolderMissingError, match=r"source\.diagnoses"):
        source(root=tmp_path, diagnoses=tmp_path / "none.csv").tables()
    with pytest.raises(FolderMissingError, match=r"source\.withdrawals"):
        source(root=tmp_path, withdrawals=tmp_path / "none.csv").tables()
