"""The source part of a site's document: what may be written, what is refused, what the templates show."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest

from cardionets_core.config.local_site import LocalSource, cell_key
from cardionets_core.config.read import Document, read_mapping
from cardionets_core.config.site import SiteConfig, UkBiobankSource, read_site
from cardionets_core.errors import ConfigError

TEMPLATES = Path(__file__).resolve().parents[2] / "site_configs"


def read(tmp_path: Path, source: str) -> Any:
    path = tmp_path / "site.yaml"
    path.write_text(f"site: here\npolicy: {{phases: [probe]}}\nsource: {source}\n")
    return read_site(path).source


def documents(annotation: Any) -> set[type[Document]]:
    """Every document that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Document):
        found = {annotation}
        for field in annotation.model_fields.values():
            found |= documents(field.annotation)
        return found
    is_nested = get_origin(annotation) is not None or isinstance(annotation, UnionType)
    return set().union(*(documents(part) for part in get_args(annotation))) if is_nested else set()


def keys(value: Any) -> set[str]:
    """Every key of a plain document."""
    if isinstance(value, dict):
        return {str(key) for key in value} | set().union(*(keys(item) for item in value.values()))
    return set().union(*(keys(item) for item in value)) if isinstance(value, list) else set()


def test_the_templates_show_every_key_that_there_is() -> None:
    shown = set().union(*(keys(read_mapping(path)) for path in TEMPLATES.glob("*.yaml")))
    known = {name for document in documents(SiteConfig) for name in document.model_fields}
    assert known - shown == set()
    for path in TEMPLATES.glob("*.yaml"):
        read_site(path)


def test_paths_inside_lists_and_mappings_become_absolute_too(tmp_path: Path) -> None:
    bank = read(tmp_path, "{kind: uk_biobank, cmr: [a, /b], converted: {folder: c}, table: t.csv}")
    base = tmp_path.resolve()
    assert bank.cmr_folders == (base / "a", Path("/b")) and bank.tables == (base / "t.csv",)
    assert bank.converted.folder == base / "c"
    own = read(
        tmp_path,
        "{kind: local_site, index: i.csv, ecg: [{format: wfdb, folder: e}],"
        " phenotypes: {table: p, columns: {24103: {column: lvef, unit: 1}}}}",
    )
    assert own.ecg_parts[0].folder == base / "e" and own.index_table.table == base / "i.csv"
    assert own.phenotypes.table == base / "p" and own.phenotypes.columns[24103].unit == "1"


def test_all_faults_of_a_list_are_told_at_once_with_their_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(
            tmp_path,
            "{kind: local_site, ecg: [{format: wfdb, folder: a, patern: x},"
            " {folder: b, pattern: '{pat}/x', scale: 0}], index: [1], people: {table: p, sex: {column: s}}}",
        )
    told = str(caught.value)
    for words in (
        "ecg.1.patern: unknown key; did you mean 'pattern'?",
        "ecg.2.format: is missing",
        "ecg.2.pattern: ",
        "{pat}",
        "ecg.2.scale",
        "index: give a path, or {table",
        "people.sex.female: is missing",
    ):
        assert words in told
    assert "(list)" not in told and "(mapping)" not in told


@pytest.mark.parametrize(("source", "told"), [
    ("{kind: local_site}", "ecg, cmr or both"),
    ("{kind: local_site, cmr: {format: nifti, folder: c}}", "who is who"),
    ("{kind: local_site, ecg: [{format: wfdb, folder: a}, {format: csv, folder: b}]}", "who is who"),
    ("{kind: local_site, index: i, ecg: {format: wfdb, folder: a, pattern: '{patient}'}}", "leave one out"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a, pattern: '{visit}'}}", "{patient}"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a, pattern: '../{patient}'}}", "stays inside"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a}, diagnoses: {table: d}}", "icd10"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a}, diagnoses: {table: d, icd10: c, diseases: {xx: [I]}}"
     "}", "diseases.xx"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a}, diagnoses: {table: d, icd10: c, diseases: {hf: ['']}"
     "}}", "every code"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a}, diagnoses: {table: d, flags: {hf: {column: c,"
     " yes: [1], no: ['1.0']}}}}", "both yes and no"),
    ("{kind: local_site, ecg: {format: wfdb, folder: a}, people: {table: d, sex: {column: c, female: [F],"
     " male: [f]}}}", "both female and male"),
    ("{kind: uk_biobank}", "ecg, cmr or converted"),
    ("{kind: uk_biobank, converted: {folder: c, pattern: '{instance}/*'}}", "{eid}"),
    ("{kind: uk_biobank, ecg: e, table: {a: 1}}", "a list of paths"),
    ("{kind: mimic_iv_ecg}", "root: is missing"),
])  # fmt: skip
def test_documents_that_contradict_themselves(tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, source)
    assert told in str(caught.value)


def test_one_mapping_and_a_list_of_one_say_the_same() -> None:
    one = {"format": "wfdb", "folder": "a"}
    assert (
        LocalSource(kind="local_site", ecg=one).ecg_parts
        == LocalSource(kind="local_site", ecg=[one]).ecg_parts
    )
    assert UkBiobankSource(kind="uk_biobank", cmr="a").cmr_folders == (Path("a"),)


@pytest.mark.parametrize(("value", "key"), [
    (1, "1"), (1.0, "1"), ("1.00", "1"), (True, "true"), (" Yes ", "yes"), ("1.5", "1.5"), ("-3.0", "-3"),
    ("v1.0", "v1.0"), ("", ""),
])  # fmt: skip
def test_declared_values_and_cells_are_compared_alike(value: Any, key: str) -> None:
    assert cell_key(value) == key
