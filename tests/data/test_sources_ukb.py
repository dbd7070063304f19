"""UK Biobank: what is listed, who is left out, one table under three namings, and the errors of a layout."""

from __future__ import annotations

import csv
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.phenotypes import FIELDS
from cardionets_core.data.records import DISEASES, EcgRecord, Person
from cardionets_core.data.sources import open_source
from cardionets_core.data.sources.uk_biobank import UkBiobankFolders
from cardionets_core.data.sources.ukb_tables import column_of
from cardionets_core.errors import FolderMissingError, SourceInvalidError

NAMINGS = ("rap_dx.csv", "ukbconv_csv.csv", "ukbconv_r.tab")


def source(*, views: tuple[str, ...] = ("4ch",), **content: Any) -> UkBiobankFolders:
    opened = open_source(
        SiteConfig(
            site="here",
            source={"kind": "uk_biobank", **content},
            policy={"phases": ["ecg_mae"]},
            prepare={"views": views},
        )
    )
    assert isinstance(opened, UkBiobankFolders)
    return opened


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def listed(opened: UkBiobankFolders) -> list[tuple[str, str, str, str]]:
    return [(r.patient, r.visit, r.kind, r.path.name) for r in opened.recordings()]


# The replicas


def test_the_replicas_list_both_visits_and_leave_out_who_withdrew(shared_data: Path) -> None:
    ukb = shared_data / "replicas" / "ukb"
    opened = source(ecg=ukb / "20205", cmr=ukb / "20209", withdrawals=ukb / "tabular", views=("4ch", "sax"))
    recordings = opened.recordings()
    assert {(r.patient, r.visit) for r in recordings if r.kind == "ecg"} == {
        ("9000011", "2"), ("9000011", "3"), ("9000022", "2"), ("9000033", "2"), ("9000055", "2"),
    }  # fmt: skip
    assert {(r.patient, r.visit) for r in recordings if r.kind == "cine"} == {
        ("9000011", "2"), ("9000022", "2"),
    }  # fmt: skip
    assert opened.refusals == {"withdrawn": 1}
    assert isinstance(opened.read(recordings[0]), EcgRecord)
    assert all(opened.parts(recording) == [recording.path] for recording in recordings)
    assert [key for key, _ in opened.tables()] == ["withdrawals"]


def test_a_short_axis_zip_is_read_with_all_its_slices(shared_data: Path) -> None:
    opened = source(cmr=shared_data / "replicas" / "ukb" / "20209", views=("sax",))
    recording = opened.recordings()[0]
    with zipfile.ZipFile(recording.path) as archive:
        images = sum(name.endswith(".dcm") for name in archive.namelist())
    (stack,) = opened.read(recording)
    assert stack.view == "sax" and stack.pixels.shape[2:] == (256, 256)
    assert stack.pixels.shape[0] * stack.pixels.shape[1] == images
    assert source(cmr=shared_data / "replicas" / "ukb" / "20209").recordings() == [], "no wanted view in it"


def truth(shared_data: Path) -> dict[str, Person]:
    """The table as the csv module sees it."""
    with (shared_data / "replicas" / "ukb" / "tabular" / "ukbconv_csv.csv").open() as stream:
        return {
            row["eid"]: Person(
                phenotypes={
                    field: float(np.float32(row[f"{field}-2.0"])) for field in FIELDS if row[f"{field}-2.0"]
                },
                age_years=float(row["21003-2.0"]),
                sex="FM"[int(row["31-0.0"])],
            )
            for row in csv.DictReader(stream)
        }


@pytest.mark.parametrize("name", NAMINGS)
def test_the_three_namings_give_the_persons_of_the_replica(shared_data: Path, name: str) -> None:
    tabular = shared_data / "replicas" / "ukb" / "tabular"
    opened = source(ecg=shared_data / "replicas" / "ukb" / "20205", table=tabular / name, withdrawals=tabular)
    expected = truth(shared_data)
    expected["9000044"] = Person()  # has withdrawn
    assert {eid: opened.person(eid, "2") for eid in expected} == expected
    assert set(FIELDS) - opened.person("9000022", "2").phenotypes.keys() == {24103}
    assert opened.person("9000033", "2").phenotypes == {} and opened.person("9000033", "2").sex
    assert len(opened.person("9000066", "2").phenotypes) == 82
    again = opened.person("9000011", "3")
    assert again == Person(sex=expected["9000011"].sex), "age and phenotypes belong to the other visit"
    assert opened.notes == {}


def test_diagnoses_belong_to_the_person(shared_data: Path, tmp_path: Path) -> None:
    ukb = shared_data / "replicas" / "ukb"
    (tmp_path / "icd.csv").write_text(
        "eid,icd10\n9000011,I251;E11\n9000011.0,I10\n9000022,\n9000044,I50\n"
        "9000055,I421\n9000055,I422\n9000066,I429\n"
    )
    opened = source(ecg=ukb / "20205", table=ukb / "tabular" / NAMINGS[0], diagnoses=tmp_path / "icd.csv",
                    withdrawals=ukb / "tabular")  # fmt: skip
    first, again = opened.person("9000011", "2"), opened.person("9000011", "3")
    assert first.phenotypes[24100] == pytest.approx(115.2779) and again.phenotypes == {}
    assert first.diseases == again.diseases == {"cad": 1.0}
    assert opened.person("9000022", "2").diseases == dict.fromkeys(DISEASES, 0.0)
    thick = {"cm": 1.0, "rcm": 0.0, "dcm": 0.0, "hcm": 1.0}
    assert opened.person("9000055", "2").diseases == thick == opened.person("9000055", "3").diseases
    assert opened.person("9000066", "2").diseases == {"cm": 1.0}
    assert opened.person("9000033", "2").diseases == {} == opened.person("9000044", "2").diseases
    assert [key for key, _ in opened.tables()] == ["table", "diagnoses", "withdrawals"]


# Tables


@pytest.mark.parametrize(("name", "found"), [
    ("f.24100.2.0", (24100, "2")), ("24100-2.0", (24100, "2")), ("p24100_i2", (24100, "2")),
    ("participant.p24100_i3", (24100, "3")), ("p24100_i2_a0", (24100, "2")), ("p24100_i2_a1", None),
    ("LV ejection fraction | Instance 2", (24103, "2")), ("p31", (31, "0")), ("f.31.0.0", (31, "0")),
    ("Age when attended assessment centre | Instance 3", (21003, "3")), ("41270-0.17", (41270, "0")),
    ("p41270", (41270, "0")), ("f.41202.0.3", (41202, "0")), ("p24099_i2", None), ("p24182_i2", None),
    ("eid", None), ("24100", None), ("p24100_i2_extra", None),
])  # fmt: skip
def test_a_column_is_known_under_any_of_its_names(name: str, found: tuple[int, str] | None) -> None:
    assert column_of(name) == found


@pytest.mark.parametrize(("header", "sick", "well", "ending"), [
    ("eid,41270-0.0,41270-0.1,41270-0.2", "1,E11,,I501", "2,,,", ".csv"),
    ("f.eid\tf.41270.0.0\tf.41270.0.1", "1\tI50\tE11", "2\t\t", ".tab"),
    ("participant.eid,participant.p41270", "1,E11|I509", "2,", ".csv"),
    ("eid,p41270", '1,"[""E11"",""I509""]"', "2,[]", ".csv"),
    ("eid,p41202,p41204", "1,E11,\"['I500', 'Z00']\"", "2,,", ".csv"),
    ("Participant ID,Diagnoses - ICD10", '1,"I50.0 Congestive heart failure|E11.9 Diabetes"', "2,", ".csv"),
])  # fmt: skip
def test_icd10_columns_under_all_namings(
    tmp_path: Path, header: str, sick: str, well: str, ending: str
) -> None:
    table = tmp_path / f"t{ending}"
    table.write_text(f"{header}\n{sick}\n{well}\n")
    for key in ("table", "diagnoses"):
        opened = source(ecg=tmp_path, **{key: table})
        assert opened.person("1", "2").diseases == {"hf": 1.0}
        assert opened.person("2", "2").diseases == dict.fromkeys(DISEASES, 0.0), "assessed, and none"
        assert opened.person("3", "2").diseases == {}


def test_several_tables_add_up_and_doubtful_cells_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("eid,p24100_i2,p24101_i2,p31\n1,150,-3,1\n2,NA,,9\n-4,1,,\n")
    (tmp_path / "b.csv").write_text("eid,p24103_i2,p21003_i2,p21003_i3\n1.0,61,300,70\n2,,-1,x\n")
    opened = source(ecg=tmp_path, table=[tmp_path / "a.csv", tmp_path / "b.csv"])
    assert opened.person("1", "2") == Person(phenotypes={24100: 150.0, 24103: 61.0}, sex="M")
    assert opened.person("1", "3").age_years == 70
    assert opened.person("2", "2") == Person()
    assert opened.notes == Counter({"phenotype-implausible": 1, "age-over-89": 1, "age-implausible": 2})


# Files


def test_zips_and_converted_files_give_one_cine_a_view(tmp_path: Path) -> None:
    bulk = touch(tmp_path / "bulk", "1_20208_2_0.zip", "1_20209_2_0.zip", "1_20208_2_1.zip",
                 "2_20208_2_0.zip", "3_20209_3_0.zip", "1_20210_2_0.zip", "1_20208_2_0.zip.part")  # fmt: skip
    touch(tmp_path / "again", "2_20208_2_0.zip")
    converted = touch(
        tmp_path / "nii",
        *(f"{visit}/{name}" for visit in ("1_2", "2_2", "3_3", "4_2") for name in
          ("la_4ch.nii.gz", "sa.nii.gz", "seg_sa.nii.gz", "sa_ED.nii.gz")),
        "4_2/la_2ch.nii", "notes.txt",
    )  # fmt: skip
    everything = {"cmr": [bulk, tmp_path / "again"], "converted": {"folder": converted}}
    opened = source(**everything, views=("4ch", "sax"))
    assert listed(opened) == [
        ("1", "2", "cine", "1_20208_2_1.zip"), ("1", "2", "cine", "1_20209_2_0.zip"),
        ("2", "2", "cine", "2_20208_2_0.zip"), ("3", "3", "cine", "3_20209_3_0.zip"),
        ("2", "2", "cine", "sa.nii.gz"), ("3", "3", "cine", "la_4ch.nii.gz"),
        ("4", "2", "cine", "la_4ch.nii.gz"), ("4", "2", "cine", "sa.nii.gz"),
    ]  # fmt: skip
    short_axis = opened.recordings()[-1]
    assert [path.name for path in opened.parts(short_axis)] == ["sa.nii.gz", "seg_sa.nii.gz"]
    only_long = [name for *_, name in listed(source(**everything))]
    assert only_long == ["1_20208_2_1.zip", "2_20208_2_0.zip", "la_4ch.nii.gz", "la_4ch.nii.gz"]
    (tmp_path / "w9_20240101.csv").write_text("4\n2\n")
    opened = source(**everything, withdrawals=tmp_path, views=("4ch", "sax", "2ch"))
    assert {patient for patient, *_ in listed(opened)} == {"1", "3"}
    assert opened.refusals == {"withdrawn": 5}


def test_converted_folders_without_an_instance_are_of_the_declared_one(tmp_path: Path) -> None:
    touch(tmp_path, "7/la_4ch.nii.gz")
    converted = {"folder": tmp_path, "pattern": "{eid}/*.nii.gz", "instance": 3}
    assert listed(source(converted=converted)) == [("7", "3", "cine", "la_4ch.nii.gz")]


def test_a_converted_view_is_read_with_its_name(tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    (tmp_path / "7_2").mkdir()
    image = nib.Nifti1Image(np.zeros((6, 5, 1, 20), dtype=np.int16), np.eye(4))
    image.header.set_zooms((1.8, 1.8, 6.0, 0.03))
    image.to_filename(tmp_path / "7_2" / "la_2ch.nii.gz")
    opened = source(converted={"folder": tmp_path}, views=("2ch",))
    (stack,) = opened.read(opened.recordings()[0])
    assert stack.view == "2ch" and stack.pixels.shape == (20, 5, 6)


def test_layout_errors_name_their_key(tmp_path: Path) -> None:
    empty = touch(tmp_path / "empty", "x.txt")
    ecg = touch(tmp_path / "ecg", "1_20205_2_0.xml")
    (tmp_path / "table.csv").write_text("eid,Ejection fraction (own)\n1,60\n")
    with pytest.raises(FolderMissingError, match=r"source\.ecg"):
        source(ecg=tmp_path / "none").recordings()
    with pytest.raises(SourceInvalidError, match=r"(?s)20205_<instance>.*source\.ecg"):
        source(ecg=empty).recordings()
    with pytest.raises(SourceInvalidError, match=r"(?s)20208 or 20209.*source\.cmr"):
        source(cmr=[empty]).recordings()
    with pytest.raises(SourceInvalidError, match=r"source\.converted\.pattern"):
        source(converted={"folder": empty}).recordings()
    with pytest.raises(SourceInvalidError, match="withdrawal"):
        source(ecg=ecg, withdrawals=empty).recordings()
    with pytest.raises(SourceInvalidError, match=r"(?s)p24100_i2.*source\.table"):
        source(ecg=ecg, table=tmp_path / "table.csv").person("1", "2")
    with pytest.raises(FolderMissingError, match=r"source\.diagnoses"):
        source(ecg=ecg, diagnoses=tmp_path / "none.csv").tables()
    (tmp_path / "table.csv").write_text("eid,p24100_i2\n1,high\n")
    with pytest.raises(SourceInvalidError, match="field 24100 is not a number") as caught:
        source(ecg=ecg, table=tmp_path / "table.csv").person("1", "2")
    assert "high" not in str(caught.value)
