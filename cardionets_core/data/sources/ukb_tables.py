"""UK Biobank tables: one column under three names (step 2 of the walk; FORMATS section 3).

``f.24100.2.0`` (ukbconv r), ``24100-2.0`` (ukbconv csv), ``p24100_i2`` (RAP, with or without
``participant.``). The RAP's titles (``LV ejection fraction | Instance 2``) are understood where they are the
showcase's words.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cardionets_core.data.phenotypes import FIELDS, PHENOTYPES
from cardionets_core.data.sources.codes import codes_in
from cardionets_core.data.sources.diseases import CodeBook, read_marks
from cardionets_core.data.sources.people_cells import Sex, age_years, sex_of
from cardionets_core.data.sources.phenotype_cells import IMPLAUSIBLE, PhenotypeCells
from cardionets_core.data.sources.tables import Columns, column_names, identifier, read_columns
from cardionets_core.errors import SourceInvalidError

SEX, AGE = 31, 21003
ICD10_FIELDS = frozenset({41270, 41202, 41204})
_ID_COLUMNS = frozenset({"f.eid", "eid", "participant.eid", "Participant ID"})
_NAMINGS = (
    re.compile(r"f\.(?P<field>\d+)\.(?P<instance>\d+)\.(?P<array>\d+)"),
    re.compile(r"(?P<field>\d+)-(?P<instance>\d+)\.(?P<array>\d+)"),
    re.compile(r"(?:participant\.)?p(?P<field>\d+)(?:_i(?P<instance>\d+))?(?:_a(?P<array>\d+))?"),
)
_TITLE = re.compile(
    r"(?P<title>[^|]+?)(?: \| Instance (?P<instance>\d+))?(?: \| Array (?P<array>\d+))?", re.I
)
_TITLES = {phenotype.title.casefold(): phenotype.field for phenotype in PHENOTYPES} | {
    "sex": SEX,
    "age when attended assessment centre": AGE,
    "diagnoses - icd10": 41270,
    "diagnoses - main icd10": 41202,
    "diagnoses - secondary icd10": 41204,
}
_FEMALE, _MALE = frozenset({"0", "female"}), frozenset({"1", "male"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UkbTables:
    """What the tables say; withdrawn people are not in it.

    Attributes:
        phenotypes: (eid, instance) to float32 [82]; visits without any value are absent.
        ages: (eid, instance) to years.
        sexes: eid to sex.
        marks: eid to marks of the ``CodeBook``; who has no row in a table with ICD-10 columns is absent.
    """

    phenotypes: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    ages: dict[tuple[str, str], float] = field(default_factory=dict)
    sexes: dict[str, Sex] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)


def column_of(name: str) -> tuple[int, str] | None:
    """(field, instance) of a column that is read here, under any naming; else None.

    Of arrays only the first item counts, but for the lists of ICD-10 codes.
    """
    found: tuple[int, str, str] | None = None
    for naming in _NAMINGS:
        if match := naming.fullmatch(name.strip()):
            found = int(match["field"]), match["instance"] or "0", match["array"] or "0"
    title = _TITLE.fullmatch(name.strip())
    if found is None and title and title["title"].casefold() in _TITLES:
        found = _TITLES[title["title"].casefold()], title["instance"] or "0", title["array"] or "0"
    if found is None:
        return None
    number, instance, array = found
    if number in ICD10_FIELDS:
        return number, instance
    is_read = FIELDS[0] <= number <= FIELDS[-1] or number in (SEX, AGE)
    return (number, instance) if is_read and int(array) == 0 else None


def read_ukb_tables(
    paths: Iterable[Path], *, key: str, book: CodeBook, withdrawn: frozenset[str], notes: Counter[str]
) -> UkbTables:
    """Read one table or several; a later one adds to the earlier ones.

    Args:
        paths: the files.
        key: of the site's document, for errors.
        book: folds ICD-10 codes.
        withdrawn: eids to pass over.
        notes: counts what was doubtful.

    Raises:
        FolderMissingError: a file is not there.
        SourceInvalidError: no column of identifiers, or none that is read here.
    """
    tables = UkbTables()
    for path in paths:
        _read_table(path, tables, key=key, book=book, withdrawn=withdrawn, notes=notes)
    return tables


def read_eid_codes(path: Path, *, book: CodeBook) -> dict[str, int]:
    """Eid to marks, from a table with columns eid and icd10, or one with ICD-10 fields under any naming."""
    key = "source.diagnoses"
    if "icd10" in column_names(path, key=key):
        return read_marks(path, key=key, patient="eid", icd10="icd10", book=book)
    return read_ukb_tables([path], key=key, book=book, withdrawn=frozenset(), notes=Counter()).marks


def _read_table(
    path: Path, tables: UkbTables, *, key: str, book: CodeBook, withdrawn: frozenset[str], notes: Counter[str]
) -> None:
    cells: dict[str, PhenotypeCells] | None = None
    columns: dict[str, tuple[int, str]] = {}
    eid_column = ""
    for piece in read_columns(path, key=key, keep=lambda n: n in _ID_COLUMNS or column_of(n) is not None):
        if cells is None:
            columns = {name: found for name in piece if (found := column_of(name)) is not None}
            eid_column = next((name for name in piece if name in _ID_COLUMNS), "")
            if not columns or not eid_column:
                raise _unknown_columns(key)
            cells = _phenotype_columns(columns, key=key)
        eids = [identifier(cell) for cell in piece[eid_column]]
        stays = [place for place, eid in enumerate(eids) if eid and eid not in withdrawn]
        kept = piece
        if len(stays) < len(eids):
            kept = {name: [column[place] for place in stays] for name, column in piece.items()}
            eids = [eids[place] for place in stays]
        for instance, reader in cells.items():
            for eid, row in zip(eids, reader.values(kept), strict=True):
                if not np.isnan(row).all():
                    earlier = tables.phenotypes.get((eid, instance))
                    filled = row.copy() if earlier is None else np.where(np.isnan(row), earlier, row)
                    tables.phenotypes[eid, instance] = filled
        _add_people(tables, eids, kept, columns, notes=notes)
        _add_codes(tables, eids, kept, columns, book=book)
    for reader in (cells or {}).values():
        if reader.implausible:
            notes[IMPLAUSIBLE] += reader.implausible


def _phenotype_columns(columns: dict[str, tuple[int, str]], *, key: str) -> dict[str, PhenotypeCells]:
    by_instance: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    for name, (number, instance) in columns.items():
        if FIELDS[0] <= number <= FIELDS[-1]:
            by_instance[instance][name] = (number, 1.0)
    return {instance: PhenotypeCells(chosen, key=key) for instance, chosen in by_instance.items()}


def _add_people(
    tables: UkbTables,
    eids: list[str],
    piece: Columns,
    columns: dict[str, tuple[int, str]],
    *,
    notes: Counter[str],
) -> None:
    for name, (number, instance) in columns.items():
        if number == AGE:
            for eid, cell in zip(eids, piece[name], strict=True):
                if (age := age_years(cell, notes=notes)) is not None:
                    tables.ages[eid, instance] = age
        elif number == SEX:
            for eid, cell in zip(eids, piece[name], strict=True):
                sex = sex_of(identifier(cell).casefold(), female=_FEMALE, male=_MALE)
                if sex is not None:
                    tables.sexes[eid] = sex


def _add_codes(
    tables: UkbTables,
    eids: list[str],
    piece: Columns,
    columns: dict[str, tuple[int, str]],
    *,
    book: CodeBook,
) -> None:
    lists = [piece[name] for name, (number, _) in columns.items() if number in ICD10_FIELDS]
    if not lists:
        return
    for eid in eids:  # a row without any code: assessed, and none
        tables.marks.setdefault(eid, 0)
    for column in lists:
        for eid, cell in zip(eids, column, strict=True):
            if cell:
                tables.marks[eid] |= book.marks(codes_in(cell, separator="|"))


def _unknown_columns(key: str) -> SourceInvalidError:
    return SourceInvalidError(
        "no identifier (eid, f.eid, participant.eid) or no known column was found; looked for "
        "f.24100.2.0, 24100-2.0 and p24100_i2 up to field 24181, and fields 31, 21003, 41270, 41202, 41204",
        where=f"site.yaml: {key}",
        remedy="export the fields with ukbconv (csv or r) or from the RAP, with their raw names",
    )
