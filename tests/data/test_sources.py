"""Sources: what is listed, who is left out, what the tables say, and which error a wrong layout gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.phenotypes import FIELDS, PHENOTYPES
from cardionets_core.data.records import DISEASES
from cardionets_core.data.sources import SOURCES, Source, open_source
from cardionets_core.data.sources.diseases import diseases_of
from cardionets_core.data.sources.mimic_iv_ecg import literal_codes
from cardionets_core.data.sources.ukb_tables import read_phenotypes, read_withdrawals
from cardionets_core.errors import FolderMissingError, RecordRefused, SourceInvalidError


def source(**content: Any) -> Source:
    return open_source(SiteConfig(site="here", source=content, policy={"phases": ["ecg_mae"]}))


def test_phenotypes_are_the_82_fields_in_order(shared_data: Path) -> None:
    listed = [
        line.split("\t")[:3] for line in (shared_data / "ukb_cmr_fields.tsv").read_text().splitlines()[1:]
    ]
    assert [[str(p.field), p.title, p.unit] for p in PHENOTYPES] == listed
    assert tuple(range(24100, 24182)) == FIELDS
    assert len({p.name for p in PHENOTYPES}) == 82
    assert PHENOTYPES[3].name == "lv_ejection_fraction_percent"


def test_every_kind_of_the_document_has_a_source() -> None:
    assert sorted(SOURCES) == ["local_site", "mimic_iv_ecg", "uk_biobank"]


# UK Biobank


def test_uk_biobank_lists_both_visits_and_leaves_out_who_withdrew(shared_data: Path) -> None:
    ukb = shared_data / "replicas" / "ukb"
    opened = source(kind="uk_biobank", ecg=ukb / "20205", withdrawals=ukb / "tabular")
    listed = opened.recordings()
    assert {(r.patient, r.visit) for r in listed} == {
        ("9000011", "2"), ("9000011", "3"), ("9000022", "2"), ("9000033", "2"), ("9000055", "2"),
    }  # fmt: skip
    assert opened.refusals == {"withdrawn": 1}
    assert opened.read(listed[0]).__class__.__name__ == "EcgRecord"


@pytest.mark.parametrize("name", ["rap_dx.csv", "ukbconv_csv.csv", "ukbconv_r.tab"])
def test_the_three_namings_of_a_table_say_the_same(shared_data: Path, name: str) -> None:
    rows = read_phenotypes(shared_data / "replicas" / "ukb" / "tabular" / name)
    assert rows["9000011", "2"][0] == np.float32(115.2779)
    assert np.isnan(rows["9000022", "2"]).sum() == 1 and np.isnan(rows["9000022", "2"][3])
    assert ("9000033", "2") not in rows and ("9000011", "3") not in rows


def test_uk_biobank_phenotypes_go_with_the_visit_and_diagnoses_with_the_person(
    shared_data: Path, tmp_path: Path
) -> None:
    ukb = shared_data / "replicas" / "ukb"
    (tmp_path / "icd.csv").write_text("eid,icd10\n9000011,I251;E11\n9000011,I10\n9000022,\n9000033,Z00\n")
    opened = source(kind="uk_biobank", ecg=ukb / "20205", table=ukb / "tabular" / "rap_dx.csv",
                    diagnoses=tmp_path / "icd.csv")  # fmt: skip
    first, again = opened.person("9000011", "2"), opened.person("9000011", "3")
    assert first.phenotypes[24100] == pytest.approx(115.2779) and again.phenotypes == {}
    assert first.diseases == again.diseases == {"cad": 1.0}
    assert opened.person("9000022", "2").diseases == dict.fromkeys(DISEASES, 0.0)
    assert opened.person("9000055", "2").diseases == {}


def test_the_newest_withdrawal_list_counts(tmp_path: Path) -> None:
    (tmp_path / "w7_20220101.csv").write_text("1\n")
    (tmp_path / "w7_20230101.csv").write_bytes(b"\xef\xbb\xbf1\r\n2\r\n\r\n")
    (tmp_path / "w8_20210101.csv").write_text("3")
    (tmp_path / "notes.csv").write_text("9\n")
    assert read_withdrawals(tmp_path) == {"1", "2", "3"}
    assert read_withdrawals(tmp_path / "w7_20220101.csv") == {"1"}
    (tmp_path / "w7_20240101.csv").write_text("")
    assert read_withdrawals(tmp_path) == {"3"}
    (tmp_path / "w7_20250101.csv").write_text("eid\n1\n")
    with pytest.raises(SourceInvalidError, match="no identifier"):
        read_withdrawals(tmp_path)


def test_uk_biobank_layout_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "ecg").mkdir()
    (tmp_path / "ecg" / "1_20205_2_0.xml").write_text("")
    (tmp_path / "table.csv").write_text("eid,LV ejection fraction | Instance 2\n1,60\n")
    with pytest.raises(FolderMissingError, match=r"source\.ecg"):
        source(kind="uk_biobank", ecg=tmp_path / "none").recordings()
    with pytest.raises(SourceInvalidError, match=r"20205_<instance>"):
        source(kind="uk_biobank", ecg=tmp_path / "empty").recordings()
    with pytest.raises(SourceInvalidError, match="withdrawal"):
        source(kind="uk_biobank", ecg=tmp_path / "ecg", withdrawals=tmp_path / "empty").recordings()
    with pytest.raises(SourceInvalidError, match="p24100_i2"):
        source(kind="uk_biobank", ecg=tmp_path / "ecg", table=tmp_path / "table.csv").person("1", "2")
    with pytest.raises(FolderMissingError, match=r"source\.diagnoses"):
        source(kind="uk_biobank", ecg=tmp_path / "ecg", diagnoses=tmp_path / "none.csv").files()


# MIMIC-IV-ECG


def test_mimic_goes_by_the_record_list_and_by_subject(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "replicas" / "mimic_iv_ecg"
    (tmp_path / "icd.csv").write_text(
        "study_id,subject_id,all_diag_all,gender\n49000001,90000011,\"['I5023', 'E785', 'I272X']\",missing\n"
        "49000002,90000011,[],M\n49000004,90000024,\"['Z000']\",F\n49000005,90000024,__import__('os'),F\n"
    )
    opened = source(kind="mimic_iv_ecg", root=root, diagnoses=tmp_path / "icd.csv")
    listed = opened.recordings()
    assert len(listed) == 8 and len({r.patient for r in listed}) == 5
    assert opened.person("90000011", "49000001").diseases == {"hf": 1.0, "ph": 1.0}
    assert opened.person("90000011", "49000002").diseases == {}  # none recorded is not healthy
    assert opened.person("90000024", "49000004").diseases == dict.fromkeys(DISEASES, 0.0)
    assert opened.person("90000024", "49000005").diseases == {}
    assert len(opened.files()) == 2 + 16


def test_mimic_records_that_are_absent_or_lead_out_of_the_tree(tmp_path: Path) -> None:
    rows = "subject_id,study_id,path\n1,11,files/a\n1,12,../../etc/passwd\n1,13,/etc/passwd\n1,14,\n"
    (tmp_path / "record_list.csv").write_text(rows)
    opened = source(kind="mimic_iv_ecg", root=tmp_path)
    (listed,) = opened.recordings()
    assert opened.refusals == {"ecg-file-missing": 3}
    with pytest.raises(RecordRefused) as caught:
        opened.read(listed)
    assert caught.value.reason == "ecg-file-missing"


def test_mimic_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(FolderMissingError, match="record_list"):
        source(kind="mimic_iv_ecg", root=tmp_path).recordings()
    (tmp_path / "record_list.csv").write_text("subject,path\n1,a\n")
    with pytest.raises(SourceInvalidError, match="subject_id"):
        source(kind="mimic_iv_ecg", root=tmp_path).recordings()
    (tmp_path / "record_list.csv").write_text("subject_id,study_id,path\n")
    with pytest.raises(SourceInvalidError, match="names no record"):
        source(kind="mimic_iv_ecg", root=tmp_path).recordings()


@pytest.mark.parametrize(("text", "codes"), [
    ("['I50']", ["I50"]), ("[]", []), ("", []), ("nan", []), ("[1, 'I10']", ["I10"]), ("{'a': 1}", []),
    ("[__import__('os').system('true')]", []), ("[" * 5000, []), ("['a'" + " " * 20_000 + "]", []),
])  # fmt: skip
def test_lists_are_literals_never_code(text: str, codes: list[str]) -> None:
    assert literal_codes(text) == codes


@pytest.mark.parametrize(("codes", "expected"), [
    (["I25.10"], {"cad": 1.0}),
    (["i420", "I43"], {"cm": 1.0}),
    (["I50.9", "I27.0", "I31"], {"hf": 1.0, "ph": 1.0, "pc": 1.0}),
    (["I27.9"], {}),
    (["I10"], {}),
    (["E11.9"], dict.fromkeys(DISEASES, 0.0)),
    ([""], dict.fromkeys(DISEASES, 0.0)),
])  # fmt: skip
def test_icd10_codes_become_labels(codes: list[str], expected: dict[str, float]) -> None:
    assert diseases_of(codes) == expected


# A hospital's own export


def local(folder: Path, **more: Any) -> Source:
    return source(
        kind="local_site",
        ecg={"format": "csv", "folder": folder / "ecg", "rate_hz": 500, "unit": "uV"},
        cmr={"format": "nifti", "folder": folder / "cmr"},
        index=folder / "index.csv",
        **more,
    )


def hospital(folder: Path, index: str) -> Path:
    for name in ("ecg", "cmr"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "index.csv").write_text(index)
    return folder


def test_a_local_index_ties_ecg_and_cine(tmp_path: Path) -> None:
    hospital(
        tmp_path,
        "patient,visit,ecg,cine\nA,1,a.csv,a.nii.gz\nA,2,b,\nB,1,,b.nii\nC,1,../c.csv,\nA,1,a.csv,\n",
    )
    (tmp_path / "p.csv").write_text("patient,visit,f24100,f24103,note\nA,1,150.5,,x\nA,2,,,\n")
    (tmp_path / "d.csv").write_text("patient,icd10\nA,I25.1;I42.0\n")
    opened = local(tmp_path, phenotypes=tmp_path / "p.csv", diagnoses=tmp_path / "d.csv")
    listed = [(r.patient, r.visit, r.kind, r.path.name) for r in opened.recordings()]
    assert sorted(set(listed)) == [
        ("A", "1", "cine", "a.nii.gz"), ("A", "1", "ecg", "a.csv"), ("A", "2", "ecg", "b.csv"),
        ("B", "1", "cine", "b.nii"),
    ]  # fmt: skip
    assert opened.refusals == {"ecg-file-missing": 1}
    assert opened.person("A", "1").phenotypes == {24100: 150.5}
    assert opened.person("A", "2").phenotypes == {} and opened.person("A", "2").diseases == {
        "cad": 1,
        "cm": 1,
    }


def test_without_an_index_every_file_is_a_person(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ecg" / "georgia"
    opened = source(kind="local_site", ecg={"format": "wfdb", "folder": folder})
    assert len({r.patient for r in opened.recordings()}) == 12 and len(opened.files()) == 24
    with pytest.raises(SourceInvalidError, match=r"\.hea"):
        source(kind="local_site", ecg={"format": "wfdb", "folder": tmp_path}).recordings()


def test_local_layout_errors(tmp_path: Path) -> None:
    hospital(tmp_path, "patient,ecg\nA,a\n")
    with pytest.raises(SourceInvalidError, match="visit"):
        local(tmp_path).recordings()
    hospital(tmp_path, "patient,visit,ecg,cine\nA,1,a,\nB,1,a,\n")
    with pytest.raises(SourceInvalidError, match="two people"):
        local(tmp_path).recordings()
    hospital(tmp_path, "patient,visit,ecg,cine\n,1,a,\n")
    with pytest.raises(SourceInvalidError, match="no patient"):
        local(tmp_path).recordings()
    hospital(tmp_path, "patient,visit,ecg,cine\n")
    with pytest.raises(SourceInvalidError, match="no recording"):
        local(tmp_path).recordings()
    (tmp_path / "p.csv").write_text("patient,visit,LVEF\nA,1,60\n")
    with pytest.raises(SourceInvalidError, match="f24100"):
        local(tmp_path, phenotypes=tmp_path / "p.csv").person("A", "1")
    (tmp_path / "p.csv").write_text("patient,visit,f24100\nA,1,high\n")
    with pytest.raises(SourceInvalidError, match="not a number"):
        local(tmp_path, phenotypes=tmp_path / "p.csv").person("A", "1")
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceInvalidError, match="UTF-8"):
        local(tmp_path).recordings()
    shutil.rmtree(tmp_path / "cmr")
    hospital_index = tmp_path / "index.csv"
    hospital_index.unlink()
    with pytest.raises(FolderMissingError, match=r"source\.cmr"):
        local(tmp_path).recordings()
