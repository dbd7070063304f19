"""A hospital's own export: folders, patterns, index, formats, tables, and the key that each error names."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.read import read_mapping
from cardionets_core.config.site import SiteConfig, read_site
from cardionets_core.data.records import DISEASES, SUBTYPES, EcgRecord, Person
from cardionets_core.data.sources import open_source
from cardionets_core.data.sources.local_site import LocalSiteSource
from cardionets_core.errors import (
    ConfigError,
    FolderMissingError,
    RecordRefused,
    SourceInvalidError,
    UnknownNameError,
)

LEADS = "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"


def source(**content: Any) -> LocalSiteSource:
    views = content.pop("views", ("4ch",))
    opened = open_source(
        SiteConfig(
            site="here",
            source={"kind": "local_site", **content},
            policy={"phases": ["ecg_mae"]},
            prepare={"views": views},
        )
    )
    assert isinstance(opened, LocalSiteSource)
    return opened


def csv_part(folder: Path, **more: Any) -> dict[str, Any]:
    return {"format": "csv", "folder": folder / "ecg", "rate_hz": 500, "unit": "uV", **more}


def local(folder: Path, **more: Any) -> LocalSiteSource:
    return source(ecg=csv_part(folder), cmr={"format": "nifti", "folder": folder / "cmr"},
                  index=folder / "index.csv", **more)  # fmt: skip


def hospital(folder: Path, index: str) -> Path:
    for name in ("ecg", "cmr"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "index.csv").write_text(index)
    return folder


def put(folder: Path, name: str, content: bytes | str = b"") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def listed(opened: LocalSiteSource) -> list[tuple[str, str, str, str]]:
    return [(r.patient, r.visit, r.kind, r.path.name) for r in opened.recordings()]


# The index


def test_an_index_ties_ecg_and_cine(tmp_path: Path) -> None:
    hospital(
        tmp_path,
        "patient,visit,ecg,cine\nA,1,a.csv,a.nii.gz\nA,2,b,\nB,1,,b.nii\nC,1,../c.csv,\nA,1,a.csv,\n"
        "15709.0,2.0,sub\\d.csv,\n",
    )
    opened = local(tmp_path)
    assert sorted(set(listed(opened))) == [
        ("15709", "2", "ecg", "d.csv"), ("A", "1", "cine", "a.nii.gz"), ("A", "1", "ecg", "a.csv"),
        ("A", "2", "ecg", "b.csv"), ("B", "1", "cine", "b.nii"),
    ]  # fmt: skip
    assert opened.refusals == {"ecg-file-missing": 1}
    assert {r.path.parent.name for r in opened.recordings() if r.patient == "15709"} == {"sub"}


def test_who_withdrew_is_in_no_modality_and_no_table(tmp_path: Path) -> None:
    hospital(tmp_path, "patient,visit,ecg,cine\nA,1,a.csv,a.nii.gz\nB,1,b.csv,b.nii\n7.0,1,c.csv,\n")
    put(tmp_path, "p.csv", "patient,visit,f24100\nA,1,150\nB,1,-5\n7,1,99\n")
    put(tmp_path, "d.csv", "patient,icd10\nA,I50\nB,I50\n7,I50\n")
    put(tmp_path, "w.txt", "B\n7\nnobody\n")
    people = {"table": tmp_path / "d.csv", "sex": {"column": "icd10", "female": ["I50"], "male": ["x"]}}
    opened = local(tmp_path, phenotypes=tmp_path / "p.csv", diagnoses=tmp_path / "d.csv", people=people,
                   withdrawals=tmp_path / "w.txt")  # fmt: skip
    assert {patient for patient, *_ in listed(opened)} == {"A"}
    assert opened.refusals == {"withdrawn": 3}
    assert opened.person("A", "1") == Person(phenotypes={24100: 150.0}, diseases={"hf": 1.0}, sex="F")
    assert opened.person("B", "1") == opened.person("7", "1") == Person()
    assert [key for key, _ in opened.tables()] == [
        "index", "phenotypes", "diagnoses", "people", "withdrawals",
    ]  # fmt: skip


def test_columns_of_the_index_may_have_other_names(shared_data: Path) -> None:
    """The PTB-XL table as it is released: a float for the person, names without ending."""
    native = shared_data / "ecg" / "ptbxl_native"
    table = shared_data / "labels" / "ptbxl_database_sample.csv"
    people = {"table": table, "patient": "patient_id", "visit": "ecg_id", "age": "age",
              "sex": {"column": "sex", "female": [1], "male": [0]}}  # fmt: skip
    opened = source(
        ecg={"format": "wfdb", "folder": native},
        index={"table": table, "patient": "patient_id", "visit": "ecg_id", "ecg": "filename_hr"},
        people=people,
    )
    recordings = opened.recordings()
    assert len(recordings) == 490
    assert all(r.patient.isdecimal() for r in recordings)
    assert (recordings[0].patient, recordings[0].visit) == ("11243", "11")
    assert recordings[0].path == native / "records500" / "00000" / "00011_hr.hea"
    assert opened.person("11243", "11") == Person(age_years=20.0, sex="F")


def test_age_300_is_over_89_and_a_value_for_every_visit(tmp_path: Path) -> None:
    put(tmp_path, "ecg/a.csv")
    put(tmp_path, "p.csv", "id,age,sex\n1,300,f\n2,42.5,M\n3,,1\n4,old,2\n5,-1,\n")
    opened = source(ecg=csv_part(tmp_path), people={
        "table": tmp_path / "p.csv", "patient": "id", "age": "age",
        "sex": {"column": "sex", "female": ["F", 1], "male": ["m", 0]}})  # fmt: skip
    assert opened.person("1", "any") == Person(sex="F")
    assert opened.person("2", "any") == Person(age_years=42.5, sex="M")
    assert [opened.person(str(n), "1").sex for n in (3, 4, 5)] == ["F", None, None]
    assert opened.notes == {"age-over-89": 1, "age-implausible": 2}


# Patterns and formats


def test_without_an_index_every_file_is_a_person(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ecg" / "georgia"
    opened = source(ecg={"format": "wfdb", "folder": folder})
    recordings = opened.recordings()
    assert len({r.patient for r in recordings}) == 12 and {r.visit for r in recordings} == {"1"}
    assert {path.suffix for r in recordings for path in opened.parts(r)} == {".hea", ".mat"}
    with pytest.raises(SourceInvalidError, match=r"(?s)\.hea.*|source\.ecg\.folder"):
        source(ecg={"format": "wfdb", "folder": tmp_path}).recordings()


def test_patterns_pair_ecgs_and_cines_without_an_index(tmp_path: Path) -> None:
    for name in ("P1/1/x.csv", "P1/2/y.csv", "P2/1/z.csv", "P2/readme.csv"):
        put(tmp_path / "ecg", name)
    for name in ("P1_1.nii.gz", "P2_1.nii", "P2_2.txt"):
        put(tmp_path / "cmr", name)
    opened = source(
        ecg=csv_part(tmp_path, pattern="{patient}/{visit}/*.csv"),
        cmr={"format": "nifti", "folder": tmp_path / "cmr", "pattern": "{patient}_{visit}.nii*"},
    )
    assert listed(opened) == [
        ("P1", "1", "ecg", "x.csv"), ("P1", "2", "ecg", "y.csv"), ("P2", "1", "ecg", "z.csv"),
        ("P1", "1", "cine", "P1_1.nii.gz"), ("P2", "1", "cine", "P2_1.nii"),
    ]  # fmt: skip
    assert listed(source(ecg=csv_part(tmp_path, pattern="{patient}/**/*.csv")))[0][:2] == ("P1", "1")


def test_a_mixed_folder_is_taken_apart_by_content(shared_data: Path, tmp_path: Path) -> None:
    georgia, ukb = shared_data / "ecg" / "georgia", shared_data / "replicas" / "ukb"
    for name in ("E07500.hea", "E07500.mat"):
        shutil.copy(georgia / name, tmp_path)
    shutil.copy(ukb / "20205" / "9000022_20205_2_0.xml", tmp_path / "cart.xml")
    shutil.copy(ukb / "20209" / "9000022_20209_2_0.zip", tmp_path / "heart.zip")
    put(tmp_path, "other.xml", "<html/>")
    put(tmp_path, "notes.txt", "not a recording")
    with zipfile.ZipFile(tmp_path / "letters.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    opened = source(ecg={"format": "auto", "folder": tmp_path})
    assert listed(opened) == [("E07500", "1", "ecg", "E07500.hea"), ("cart", "1", "ecg", "cart.xml")]
    assert opened.refusals == {"unrecognised": 1}
    assert all(isinstance(opened.read(recording), EcgRecord) for recording in opened.recordings())
    both = source(
        ecg={"format": "auto", "folder": tmp_path, "pattern": "{patient}.*"},
        cmr={"format": "auto", "folder": tmp_path, "pattern": "{patient}.*"},
        views=("sax",),
    )
    kinds = {patient: kind for patient, _, kind, _ in listed(both)}
    assert kinds["heart"] == "cine" and kinds["E07500"] == kinds["cart"] == "ecg"


def test_an_indexed_auto_folder_is_recognised_when_read(shared_data: Path, tmp_path: Path) -> None:
    ukb = shared_data / "replicas" / "ukb"
    put(tmp_path, "other.xml", "<html/>")
    put(tmp_path, "index.csv", "patient,visit,ecg\nA,1,9000022_20205_2_0\nB,1,none.xml\n")
    opened = source(ecg={"format": "auto", "folder": ukb / "20205"}, index=tmp_path / "index.csv")
    there, gone = opened.recordings()
    assert there.path.suffix == ".xml" and isinstance(opened.read(there), EcgRecord)
    with pytest.raises(RecordRefused) as caught:
        opened.read(gone)
    assert caught.value.reason == "ecg-file-missing"


def test_several_folders_of_several_formats(shared_data: Path, tmp_path: Path) -> None:
    georgia, ningbo = shared_data / "ecg" / "georgia", shared_data / "ecg" / "ningbo"
    put(tmp_path, "ecg/C1.csv", f"{LEADS}\n" + ("0," * 11 + "1000\n") * 10)
    put(tmp_path, "index.csv", "patient,visit,ecg\nA,1,E07500\nB,1,JS20000.mat\nC,1,C1.csv\nD,1,none\n")
    opened = source(
        ecg=[{"format": "wfdb", "folder": georgia}, {"format": "wfdb", "folder": ningbo, "scale": 2},
             csv_part(tmp_path)],
        index=tmp_path / "index.csv",
    )  # fmt: skip
    recordings = opened.recordings()
    assert [r.path.parent.name for r in recordings] == ["georgia", "ningbo", "ecg", "georgia"]
    plain = source(ecg={"format": "wfdb", "folder": ningbo})
    same = next(r for r in plain.recordings() if r.path == recordings[1].path)
    scaled, once = opened.read(recordings[1]), plain.read(same)
    assert isinstance(scaled, EcgRecord) and isinstance(once, EcgRecord)
    np.testing.assert_array_equal(scaled.signal_mv, once.signal_mv * 2)
    assert "gain-declared" in scaled.flags - once.flags
    text = opened.read(recordings[2])
    assert isinstance(text, EcgRecord) and text.signal_mv[11, 0] == 1 and text.fs_hz == 500


def test_settings_tell_how_files_are_read_and_not_where_they_lie(tmp_path: Path) -> None:
    def settings(folders: tuple[str, ...], rates: tuple[int, ...], root: str = "a") -> Any:
        parts = [
            csv_part(tmp_path)
            | {"folder": tmp_path / root / folder, "rate_hz": rate, "pattern": "{patient}*"}
            for folder, rate in zip(folders, rates, strict=True)
        ]
        return source(ecg=parts).settings()

    both = settings(("x", "y"), (500, 400))
    assert [part["rate_hz"] for part in both["ecg"]] == [500, 400] and both["cmr"] == []
    assert str(tmp_path) not in str(both) and "{patient}" not in str(both)
    assert settings(("x", "y"), (500, 400), root="b") == both, "the export has moved"
    assert settings(("y", "x"), (500, 400)) != both, "each folder has the other's rate"
    assert settings(("x",), (500,)) == settings(("y",), (500,)) != settings(("x",), (400,))


def test_a_folder_may_be_one_recording(shared_data: Path) -> None:
    acdc = shared_data / "cmr" / "acdc"
    opened = source(cmr={"format": "nifti", "folder": acdc, "pattern": "{patient}/"}, views=("sax",))
    recordings = opened.recordings()
    assert len(recordings) == 10 and all(r.path.is_dir() for r in recordings)
    assert {r.patient for r in recordings} == {path.name for path in acdc.glob("patient*")}
    (stack,) = opened.read(recordings[0])
    assert stack.view == "sax" and stack.mask is not None


def test_wfdb_parts_are_the_files_that_the_header_names(shared_data: Path) -> None:
    opened = source(ecg={"format": "wfdb", "folder": shared_data / "ecg" / "ptb"})
    (recording,) = opened.recordings()
    assert {path.suffix for path in opened.parts(recording)} == {".hea", ".dat", ".xyz"}


def test_a_folder_of_another_view_is_not_listed(tmp_path: Path) -> None:
    put(tmp_path, "sa/A.nii")
    put(tmp_path, "la/A.nii")
    parts = [
        {"format": "nifti", "folder": tmp_path / folder, "pattern": "{patient}.nii", "view": view}
        for folder, view in (("sa", "sax"), ("la", "4ch"))
    ]
    assert [r.path.parent.name for r in source(cmr=parts).recordings()] == ["la"]
    assert [r.path.parent.name for r in source(cmr=parts, views=("sax", "4ch")).recordings()] == ["sa", "la"]


# Tables

DILATED = {"rcm": 0.0, "dcm": 1.0, "hcm": 0.0}


def test_standard_tables_need_no_declaration(tmp_path: Path) -> None:
    put(tmp_path, "ecg/a.csv")
    put(tmp_path, "p.csv", "patient,visit,f24100,lv_ejection_fraction_percent,note\nA,1,150.5,,x\nA,2,,61,\n")
    put(tmp_path, "d.csv", "patient,icd10\nA,I25.1;I42.0\nB,\n")
    opened = source(ecg=csv_part(tmp_path), phenotypes=tmp_path / "p.csv", diagnoses=tmp_path / "d.csv")
    assert opened.person("A", "1") == Person(
        phenotypes={24100: 150.5}, diseases={"cad": 1.0, "cm": 1.0, **DILATED}
    )
    assert opened.person("A", "2").phenotypes == {24103: 61.0}
    assert opened.person("B", "1").diseases == dict.fromkeys(DISEASES, 0.0)
    assert opened.person("C", "1") == Person()


def test_declared_phenotypes_are_converted_and_a_list_of_codes_is_the_site_s(tmp_path: Path) -> None:
    put(tmp_path, "ecg/a.csv")
    put(tmp_path, "p.tsv", "id\tlvef\tedv\tmass\nA\t0.6\t0.15\t900\nB\t\t0.1\t2000000\n")
    put(tmp_path, "d.csv", "id|,codes\nA,I11.0/E11\nB,I10\n")
    columns = {24103: {"column": "lvef", "unit": 1}, 24100: {"column": "edv", "unit": "l"},
               24105: {"column": "mass", "unit": "g"}}  # fmt: skip
    opened = source(
        ecg=csv_part(tmp_path),
        phenotypes={"table": tmp_path / "p.tsv", "patient": "id", "visit": None, "columns": columns},
        diagnoses={"table": tmp_path / "d.csv", "patient": "id|", "icd10": "codes", "separator": "/",
                   "diseases": {"hf": ["I50", "I110"]}},
    )  # fmt: skip
    first = opened.person("A", "any")
    assert first.phenotypes == pytest.approx({24103: 60.0, 24100: 150.0, 24105: 900.0}, rel=1e-6)
    assert first.diseases == {"hf": 1.0} and opened.person("B", "any").diseases == {}
    assert opened.person("B", "x").phenotypes == pytest.approx({24100: 100.0}, rel=1e-6)
    assert opened.notes == {"phenotype-implausible": 1}


def test_flag_columns_say_yes_no_or_nothing(tmp_path: Path) -> None:
    put(tmp_path, "ecg/a.csv")
    put(tmp_path, "d.csv", "patient,heart_failure,cad\nA,Yes,0\nA,no,0\nB,1.0,9\nC,,no\nD,true,1\n")
    put(
        tmp_path,
        "site.yaml",
        "site: here\npolicy: {phases: [probe]}\nsource:\n  kind: local_site\n"
        "  ecg: {format: csv, folder: ecg, rate_hz: 500, unit: uV}\n"
        "  diagnoses: {table: d.csv, flags: {hf: {column: heart_failure, yes: [1, yes], no: [0, no]}, "
        "cad: {column: cad}}}\n",
    )
    opened = open_source(read_site(tmp_path / "site.yaml"))
    labels = {name: opened.person(name, "1").diseases for name in "ABCD"}
    assert labels == {
        "A": {"hf": 1.0, "cad": 0.0}, "B": {"hf": 1.0}, "C": {"cad": 0.0}, "D": {"cad": 1.0},
    }  # fmt: skip
    assert read_mapping(put(tmp_path, "y.yaml", "yes: [no, true]")) == {"yes": ["no", True]}


def test_a_flag_column_alone_decides_its_disease_and_codes_the_others(tmp_path: Path) -> None:
    put(tmp_path, "ecg/a.csv")
    rows = (
        "A,I27.0,no",
        "B,E11,unknown",
        "C,E11,yes",
        "D,I27.0,",
        "E,E11,no",
        "E,I50,yes",
        "E,,?",
        "F,,?",
        "F,,no",
    )
    put(tmp_path, "d.csv", "\n".join(("patient,icd10,ph", *rows)) + "\n")
    flags = {"ph": {"column": "ph", "yes": ["yes"], "no": ["no"]}}
    table = {"table": tmp_path / "d.csv", "icd10": "icd10", "flags": flags}
    opened = source(ecg=csv_part(tmp_path), diagnoses=table)
    others = dict.fromkeys(set(DISEASES) - {"ph"}, 0.0)
    assert {name: opened.person(name, "1").diseases for name in "ABCDEFG"} == {
        "A": {"ph": 0.0},  # any code of the chapter I leaves the others unknown
        "B": others,
        "C": {**others, "ph": 1.0},
        "D": {},
        "E": {"hf": 1.0, "ph": 1.0},
        "F": {**others, "ph": 0.0},
        "G": {},
    }
    with pytest.raises(ValueError, match="ph has a flag column"):
        source(ecg=csv_part(tmp_path), diagnoses={**table, "diseases": {"ph": ["I27"]}})


def test_subtypes_come_from_codes_or_columns_and_never_against_a_denied_cardiomyopathy(
    tmp_path: Path,
) -> None:
    put(tmp_path, "ecg/a.csv")
    rows = ("A,I42.0,yes,", "B,I42.0,no,", "C,I42.0,?,", "D,E11,yes,yes", "E,I42.1,yes,yes",
            "F,I42.5,yes,no", "G,I42.9,yes,yes", "H,E11,,yes", "I,I42.0,yes,yes")  # fmt: skip
    put(tmp_path, "d.csv", "\n".join(("patient,icd10,cm,hypertrophic", *rows)) + "\n")
    flags = {"cm": {"column": "cm", "yes": ["yes"], "no": ["no"]},
             "hcm": {"column": "hypertrophic", "yes": ["yes"], "no": ["no"]}}  # fmt: skip
    table = {"table": tmp_path / "d.csv", "icd10": "icd10", "flags": flags}
    opened = source(ecg=csv_part(tmp_path), diagnoses=table)
    found = {name: opened.person(name, "1").diseases for name in "ABCDEFGHI"}
    thick, stiff = ({**dict.fromkeys(SUBTYPES, 0.0), name: 1.0} for name in ("hcm", "rcm"))
    others = dict.fromkeys(set(DISEASES) - {"cm"}, 0.0)
    assert found == {
        "A": {"cm": 1.0, **DILATED},
        "B": {"cm": 0.0},  # the column denies what the code says
        "C": DILATED,
        "D": {**others, "cm": 1.0, **thick},
        "E": {"cm": 1.0, **thick},  # by its column; its code does not count
        "F": {"cm": 1.0, **stiff},
        "G": {"cm": 1.0, **thick},
        "H": {**others, **thick},
        "I": {"cm": 1.0},  # two of them
    }
    with pytest.raises(ValueError, match="dcm"):
        source(ecg=csv_part(tmp_path), diagnoses={**table, "diseases": {"dilated": ["I420"]}})
    with pytest.raises(ValueError, match="hcm has a flag column"):
        source(ecg=csv_part(tmp_path), diagnoses={**table, "diseases": {"hcm": ["I421"]}})


def test_a_pipe_among_the_recordings_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "index.csv", "patient,visit,ecg\nA,1,a.hea\n")
    (tmp_path / "ecg").mkdir()
    os.mkfifo(tmp_path / "ecg" / "a.hea")
    opened = source(ecg={"format": "wfdb", "folder": tmp_path / "ecg"}, index=tmp_path / "index.csv")
    (recording,) = opened.recordings()
    assert opened.parts(recording) == []
    with pytest.raises(RecordRefused):
        opened.read(recording)


# Errors


@pytest.mark.parametrize(("part", "told"), [
    ({"ecg": {"format": "betamax", "folder": "x"}}, r"source\.ecg\.format"),
    ({"ecg": {"format": "csv", "folder": "x", "rate_hz": 500}}, r"source\.ecg\.unit"),
    ({"ecg": {"format": "csv", "folder": "x"}}, r"rate_hz and unit"),
    ({"ecg": {"format": "nifti", "folder": "x"}}, r"(?s)no ecg.*source\.ecg\.format.*wfdb"),
    ({"cmr": [{"format": "wfdb", "folder": "x", "pattern": "{patient}"}]}, r"source\.cmr\.0\.format"),
])  # fmt: skip
def test_formats_are_checked_when_the_source_is_opened(part: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        source(**part)
    if "betamax" in str(part):
        with pytest.raises(UnknownNameError):
            source(**part)


def test_all_wrong_formats_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        source(
            ecg=[{"format": "betamax", "folder": "a", "pattern": "{patient}"},
                 {"format": "auto", "folder": "b", "pattern": "{patient}"}],
            cmr={"format": "csv", "folder": "c", "pattern": "{patient}"},
        )  # fmt: skip
    told = str(caught.value)
    assert "source.ecg.0.format" in told and "source.cmr.format" in told and "source.ecg.1" not in told


def test_fields_and_units_are_checked_when_the_source_is_opened(tmp_path: Path) -> None:
    columns = {24103: {"column": "a", "unit": "ml"}, 99: {"column": "b", "unit": "ml"},
               24100: {"column": "c", "unit": "l"}}  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        source(ecg=csv_part(tmp_path), phenotypes={"table": tmp_path / "p.csv", "columns": columns})
    text = str(caught.value)
    assert "columns.24103.unit" in text and "columns.99" in text and "24100.unit" not in text


def test_layout_errors_name_their_key(tmp_path: Path) -> None:
    for index, told in (
        ("patient,ecg\nA,a\n", "visit"),
        ("patient,visit,ecg,cine\nA,1,a,\nB,1,a,\n", "two people"),
        ("patient,visit,ecg,cine\n,1,a,\n", "no patient"),
        ("patient,visit,ecg,cine\n", "no recording"),
    ):
        hospital(tmp_path, index)
        with pytest.raises(SourceInvalidError, match=rf"(?s){told}.*site\.yaml: source"):
            local(tmp_path).recordings()
    put(tmp_path, "p.csv", "patient,visit,LVEF\nA,1,60\n")
    with pytest.raises(SourceInvalidError, match=r"(?s)f24100.*source\.phenotypes"):
        local(tmp_path, phenotypes=tmp_path / "p.csv").person("A", "1")
    put(tmp_path, "p.csv", "patient,visit,f24100\nA,1,high\n")
    with pytest.raises(SourceInvalidError, match="not a number") as caught:
        local(tmp_path, phenotypes=tmp_path / "p.csv").person("A", "1")
    assert "high" not in str(caught.value)
    shutil.rmtree(tmp_path / "cmr")
    with pytest.raises(FolderMissingError, match=r"source\.cmr\.folder"):
        local(tmp_path).recordings()
    with pytest.raises(SourceInvalidError, match=r"(?s)where the pattern says.*source\.ecg\.pattern"):
        source(ecg=csv_part(tmp_path, pattern="{patient}.csv")).recordings()
