"""What all sources share: tables, identifiers, codes, withdrawals, patterns, phenotypes and their units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.data.phenotypes import FIELDS, PHENOTYPES, factor_from, units_of
from cardionets_core.data.records import DISEASES, LABELS, SUBTYPES
from cardionets_core.data.sources import SOURCES
from cardionets_core.data.sources.codes import codes_in, literal_codes
from cardionets_core.data.sources.diseases import CodeBook, settle_subtypes
from cardionets_core.data.sources.mimic_tables import _ASSESSED
from cardionets_core.data.sources.patterns import Pattern
from cardionets_core.data.sources.phenotype_cells import PhenotypeCells
from cardionets_core.data.sources.tables import identifier
from cardionets_core.data.sources.withdrawals import read_list, read_ukb_lists
from cardionets_core.errors import FolderMissingError, SourceInvalidError


def test_phenotypes_are_the_82_fields_in_order(shared_data: Path) -> None:
    listed = [
        line.split("\t")[:3] for line in (shared_data / "ukb_cmr_fields.tsv").read_text().splitlines()[1:]
    ]
    assert [[str(p.field), p.title, p.unit] for p in PHENOTYPES] == listed
    assert tuple(range(24100, 24182)) == FIELDS
    assert len({p.name for p in PHENOTYPES}) == 82
    assert PHENOTYPES[3].name == "lv_ejection_fraction_percent"


def test_bounds_hold_every_mean_and_refuse_a_wrong_unit(shared_data: Path) -> None:
    rows = [line.split("\t") for line in (shared_data / "ukb_cmr_fields.tsv").read_text().splitlines()[1:]]
    for phenotype, row in zip(PHENOTYPES, rows, strict=True):
        low, high = phenotype.bounds
        mean = float(row[3])
        assert low < mean < high
        if phenotype.unit in ("mL", "L/min", "g") or "ejection fraction" in phenotype.title:
            assert not low < mean / 1000 < high, "a thousand times too small must not pass"
        assert not low <= -9999 <= high


def test_every_kind_of_the_document_has_a_source() -> None:
    assert sorted(SOURCES) == ["local_site", "mimic_iv_ecg", "uk_biobank"]


# Tables


def as_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(",".join("" if cell is None else str(cell) for cell in row))
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    return path.with_suffix(".csv")


def as_tab(path: Path, columns: dict[str, list[Any]]) -> Path:
    text = as_csv(path, columns).read_text()
    path.with_suffix(".tsv").write_text(text.replace(",", "\t"))
    return path.with_suffix(".tsv")


def as_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("write", [as_csv, as_tab, as_parquet])
def test_text_and_parquet_tables_come_out_alike(
    tmp_path: Path, write: Callable[[Path, dict[str, list[Any]]], Path], read_table: Callable[..., Any]
) -> None:
    table = write(tmp_path / "t", {"id": [15709.0, None], "x": [60.5, None], "word": ["a", ""], "n": [3, 4]})
    rows = list(read_table(table, key="source.k", columns=("id", "x"), keep=lambda name: name == "word"))
    assert [{**row, "id": identifier(row["id"])} for row in rows] == [
        {"id": "15709", "x": "60.5", "word": "a"},
        {"id": "", "x": "", "word": ""},
    ]
    with pytest.raises(SourceInvalidError, match=r"(?s)lacks.*'y'.*source\.k"):
        list(read_table(table, key="source.k", columns=("y",)))


def test_lists_of_parquet_and_empty_tables(tmp_path: Path, read_table: Callable[..., Any]) -> None:
    lists = pa.table({"icd10": pa.array([["I50", "E11"], [], None], type=pa.list_(pa.string()))})
    pq.write_table(lists, tmp_path / "t.parquet")
    cells = [row["icd10"] for row in read_table(tmp_path / "t.parquet", key="k", columns=("icd10",))]
    assert [codes_in(cell, separator=";") for cell in cells] == [["I50", "E11"], [], [""]]
    pq.write_table(lists.slice(0, 0), tmp_path / "none.parquet")
    assert list(read_table(tmp_path / "none.parquet", key="k", columns=("icd10",))) == []


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"PAR1 not really", b'a,b\n1,2\n"open'])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_what_is_no_table_is_one_error_with_its_key(
    tmp_path: Path, name: str, content: bytes, read_table: Callable[..., Any]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceInvalidError) as caught:
        list(read_table(tmp_path / name, key="source.index", columns=("a",)))
    assert caught.value.where == "site.yaml: source.index"
    assert str(tmp_path) not in caught.value.what
    with pytest.raises(FolderMissingError, match=r"source\.index"):
        list(read_table(tmp_path / "absent.csv", key="source.index"))


@given(st.integers(min_value=-(10**9), max_value=10**9))
def test_an_identifier_survives_being_made_a_float(number: int) -> None:
    assert identifier(str(float(number))) == identifier(f" {number} ") == str(number)


@pytest.mark.parametrize("text", ["", "A1.0", "1.5", "007", "1.0.0", "nan", "1e5"])
def test_other_identifiers_stay_as_they_are(text: str) -> None:
    assert identifier(text) == text


# Codes


@pytest.mark.parametrize(("text", "codes"), [
    ("['I50']", ["I50"]), ("[]", []), ("", []), ("nan", []), ("[1, 'I10']", ["I10"]),
    ('["I50", null]', ["I50"]), ("{'NORM': 80.0, 'SR': 0.0}", ["NORM", "SR"]), ("['it''s']", ["its"]),
    ('["a, b", "c"]', ["a, b", "c"]), (r"['a\'b', 'c']", ["a'b", "c"]), ("['a' 'b', 'c']", ["ab", "c"]),
    ("[__import__('os').system('true')]", []), ("[" * 5000, []), ("['a'" + " " * 20_000 + "]", []),
])  # fmt: skip
def test_lists_are_literals_never_code(text: str, codes: list[str]) -> None:
    assert literal_codes(text) == codes


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=5))
def test_a_list_as_text_is_what_python_wrote(codes: list[str]) -> None:
    assert literal_codes(str(codes)) == codes


@pytest.mark.parametrize(("codes", "expected"), [
    (["I25.10"], {"cad": 1.0}),
    (["i420", "I43"], {"cm": 1.0, "rcm": 0.0, "dcm": 1.0, "hcm": 0.0}),
    (["I42.1", "I42.2", "I50"], {"cm": 1.0, "hf": 1.0, "rcm": 0.0, "dcm": 0.0, "hcm": 1.0}),
    (["I42.5"], {"cm": 1.0, "rcm": 1.0, "dcm": 0.0, "hcm": 0.0}),
    (["I42.0", "I42.1"], {"cm": 1.0}),
    (["I42.9", "I42"], {"cm": 1.0}),
    (["I50.9", "I27.0", "I31"], {"hf": 1.0, "ph": 1.0, "pc": 1.0}),
    (["I27.9"], {}),
    (["I10"], {}),
    (["I50.0 Congestive heart failure"], {"hf": 1.0}),
    (["E11.9"], dict.fromkeys(DISEASES, 0.0)),
    ([""], dict.fromkeys(DISEASES, 0.0)),
])  # fmt: skip
def test_icd10_codes_become_labels(codes: list[str], expected: dict[str, float]) -> None:
    book = CodeBook()
    assert book.labels(book.marks(codes)) == expected


@given(
    st.lists(st.sampled_from(["I50", "I25.1", "I10", "E11", "I27.2X", "I42.0", ""]), max_size=6),
    st.lists(st.sampled_from(["I42", "Z00", "I50.9", "I42.2"]), max_size=6),
)
def test_marks_of_parts_join_to_the_marks_of_the_whole(some: list[str], others: list[str]) -> None:
    book, other = CodeBook(), CodeBook()
    assert book.marks(some) | book.marks(others) == book.marks(some + others)
    assert book.labels(book.marks(some + others)) == other.labels(other.marks(others + some))


def test_a_site_may_replace_the_codes_of_one_disease() -> None:
    book = CodeBook({"hf": ("I50", "I110")})
    assert book.labels(book.marks(["I11.0"])) == {"hf": 1.0}
    assert CodeBook().labels(CodeBook().marks(["I11.0"])) == {}
    assert book.labels(book.marks(["I25"])) == {"cad": 1.0}
    own = CodeBook({"dcm": ("I426",), "rcm": ("E85",)})
    subtypes = dict.fromkeys(SUBTYPES, 0.0)
    assert own.labels(own.marks(["I42.6"])) == {"cm": 1.0, **subtypes, "dcm": 1.0}
    assert own.labels(own.marks(["I42.0"])) == {"cm": 1.0}
    # What no code of this site calls a cardiomyopathy cannot be a kind of one.
    assert own.labels(own.marks(["E85"])) == dict.fromkeys(DISEASES, 0.0)


def test_the_marks_of_all_labels_fit_beside_the_bit_that_mimic_adds() -> None:
    every = CodeBook().marks(["I25", "I42.0", "I42.1", "I42.5", "I50", "I30", "I27.0"])
    assert every == 2 ** (len(LABELS) + 1) - 1 < _ASSESSED


@given(st.dictionaries(st.sampled_from(LABELS), st.sampled_from([0.0, 1.0])))
def test_subtypes_are_one_of_three_or_unknown(said: dict[str, float]) -> None:
    settled = settle_subtypes(said)
    assert {name: settled.get(name) for name in DISEASES} == {name: said.get(name) for name in DISEASES}
    known = [settled[name] for name in SUBTYPES if name in settled]
    assert sorted(known) in ([], [0.0, 0.0, 1.0]) and not (known and settled.get("cm") == 0.0)
    assert all(said[name] == 1.0 for name in SUBTYPES if settled.get(name) == 1.0)


# Withdrawals


def test_the_newest_withdrawal_list_counts(tmp_path: Path) -> None:
    (tmp_path / "w7_20220101.csv").write_text("1\n")
    (tmp_path / "w7_20230101.csv").write_bytes(b"\xef\xbb\xbf1\r\n2\r\n\r\n")
    (tmp_path / "w8_20210101.csv").write_text("3")
    (tmp_path / "notes.csv").write_text("9\n")
    assert read_ukb_lists(tmp_path) == {"1", "2", "3"}
    assert read_ukb_lists(tmp_path / "w7_20220101.csv") == {"1"}
    (tmp_path / "w7_20240101.csv").write_text("")
    assert read_ukb_lists(tmp_path) == {"3"}
    (tmp_path / "w7_20250101.csv").write_text("eid\n1\n")
    with pytest.raises(SourceInvalidError, match="no identifier"):
        read_ukb_lists(tmp_path)
    assert read_ukb_lists(None) == frozenset() == read_list(None, numbers=False)


@pytest.mark.parametrize(("content", "numbers", "expected"), [
    (b"P-1\n\nP 2\n", False, None), (b"a,b\n", False, None), (b"\xff\xfe1\x00", False, None),
    (b"12\nx\n", True, None), (b"P-1\r\n\"P_2\"\n 15709.0 ", False, {"P-1", "P_2", "15709"}),
    (b"", False, set()),
])  # fmt: skip
def test_a_list_that_is_not_understood_is_not_a_short_one(
    tmp_path: Path, content: bytes, numbers: bool, expected: set[str] | None
) -> None:
    (tmp_path / "w.csv").write_bytes(content)
    if expected is not None:
        assert read_list(tmp_path / "w.csv", numbers=numbers) == expected
        return
    with pytest.raises(SourceInvalidError) as caught:
        read_list(tmp_path / "w.csv", numbers=numbers)
    assert caught.value.where == "site.yaml: source.withdrawals"


# Patterns


@pytest.mark.parametrize(("pattern", "path", "found"), [
    ("{patient}/{visit}/*.xml", "A/1/x.XML", {"patient": "A", "visit": "1"}),
    ("{patient}/{visit}/*.xml", "A/1/2/x.xml", None),
    ("{patient}_{visit}.h5", "A_1_2.h5", {"patient": "A_1", "visit": "2"}),
    ("{patient}/{patient}_4d.nii.gz", "p1/p1_4d.nii.gz", {"patient": "p1"}),
    ("{patient}/{patient}_4d.nii.gz", "p1/p2_4d.nii.gz", None),
    ("**/{patient}.dcm", "A.dcm", {"patient": "A"}),
    ("**/{patient}.dcm", "x/y/A.dcm", {"patient": "A"}),
    ("{patient}/", "A", {"patient": "A"}),
    ("a+b/{patient}.x?", "a+b/P.xy", {"patient": "P"}),
    ("a+b/{patient}.x?", "aab/P.xy", None),
])  # fmt: skip
def test_patterns_read_person_and_visit_off_a_path(
    pattern: str, path: str, found: dict[str, str] | None
) -> None:
    assert Pattern(pattern).match(path) == found


# Phenotypes


@pytest.mark.parametrize(("field", "value", "unit", "expected"), [
    (24100, 0.148, "l", 148.0), (24103, 0.6, "1", 60.0), (24103, 60.0, "%", 60.0), (24105, 0.1, "kg", 100.0),
    (24118, 8.0, "cm²", 800.0), (24140, 0.9, "CM", 9.0), (24104, 5500.0, "mL/min", 5.5),
    (24120, 0.0017, "1/mmHg", 1.7), (24120, 1.7, "10^-3 mmHg^-1", 1.7),
])  # fmt: skip
def test_declared_units_become_the_unit_of_the_field(
    field: int, value: float, unit: str, expected: float
) -> None:
    factor = factor_from(unit, PHENOTYPES[field - 24100])
    assert factor is not None
    row = PhenotypeCells({"c": (field, factor)}, key="k").values({"c": [str(value)]})[0]
    assert row[field - 24100] == pytest.approx(expected)
    assert np.isnan(row).sum() == 81


@pytest.mark.parametrize(("field", "unit"), [(24100, "%"), (24100, "ml/m2"), (24103, "ml"), (24140, "mm2")])
def test_units_of_another_dimension_have_no_factor(field: int, unit: str) -> None:
    assert factor_from(unit, PHENOTYPES[field - 24100]) is None
    assert unit not in units_of(PHENOTYPES[field - 24100])


def test_implausible_values_are_missing_and_counted_and_a_wrong_unit_is_refused() -> None:
    cells = PhenotypeCells({"edv": (24100, 1.0), "ef": (24103, 1.0)}, key="source.phenotypes")
    values = cells.values({"edv": ["150", "-999", "", "NA", "1e9", "inf"], "ef": ["60"] * 6})
    assert values[:, 0][:1] == 150 and np.isnan(values[1:, 0]).all() and (values[:, 3] == 60).all()
    assert cells.implausible == 2
    cells.check_units()
    cells.values({"edv": ["150"] * 30, "ef": ["0.6"] * 30})
    with pytest.raises(SourceInvalidError, match=r"24103.*%"):
        cells.check_units()
    with pytest.raises(SourceInvalidError, match="24103 is not a number") as caught:
        cells.values({"edv": ["1"], "ef": ["60,5"]})
    assert "60,5" not in str(caught.value)
