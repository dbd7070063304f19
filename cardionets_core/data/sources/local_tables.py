"""The tables of a hospital's own export: phenotypes, diagnoses, age and sex (step 2 of the walk).

Columns, units and meanings are those that ``site.yaml`` declares, or the standard ones where it names only a
path. People who have withdrawn are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cardionets_core.config.local_site import (
    Cell,
    DiagnosisTable,
    LocalSource,
    PeopleTable,
    PhenotypeTable,
    cell_key,
)
from cardionets_core.data.phenotypes import FIELDS, FIRST_FIELD, PHENOTYPES, factor_from, units_of
from cardionets_core.data.records import Person
from cardionets_core.data.sources.diseases import CodeBook, read_marks, settle_subtypes
from cardionets_core.data.sources.people_cells import Sex, age_years, sex_of
from cardionets_core.data.sources.phenotype_cells import (
    FIELD_OF_COLUMN,
    IMPLAUSIBLE,
    PhenotypeCells,
    phenotype_values,
)
from cardionets_core.data.sources.tables import column_names, identifier, read_columns
from cardionets_core.errors import ConfigError, SourceInvalidError

EVERY_VISIT = ""
Visit = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTables:
    """What the tables say. A visit is (patient, visit), or (patient, ``EVERY_VISIT``).

    Attributes:
        phenotypes: visit to float32 [82].
        diseases: patient to labels.
        ages: visit to years.
        sexes: visit to sex.
    """

    phenotypes: dict[Visit, np.ndarray] = field(default_factory=dict)
    diseases: dict[str, dict[str, float]] = field(default_factory=dict)
    ages: dict[Visit, float] = field(default_factory=dict)
    sexes: dict[Visit, Sex] = field(default_factory=dict)

    def person(self, patient: str, visit: str) -> Person:
        """One visit; what holds for every visit stands in where the visit itself has no row."""
        one, every = (patient, visit), (patient, EVERY_VISIT)
        return Person(
            phenotypes=phenotype_values(self.phenotypes.get(one, self.phenotypes.get(every))),
            diseases=dict(self.diseases.get(patient, {})),
            age_years=self.ages.get(one, self.ages.get(every)),
            sex=self.sexes.get(one, self.sexes.get(every)),
        )


def check_units(table: PhenotypeTable) -> None:
    """Check fields and units of a declared table without opening it.

    Raises:
        ConfigError: names every field that does not exist, and every unit of another dimension.
    """
    faults = []
    for number, declared in table.columns.items():
        key = f"source.phenotypes.columns.{number}"
        if number not in FIELDS:
            faults.append(f"{key}: there is no such field; there are {FIELDS[0]} to {FIELDS[-1]}")
            continue
        phenotype = PHENOTYPES[number - FIRST_FIELD]
        if factor_from(declared.unit, phenotype) is None:
            faults.append(
                f"{key}.unit: {declared.unit!r} is no unit of {phenotype.title}; "
                f"there are {', '.join(units_of(phenotype))}"
            )
    if faults:
        raise ConfigError(
            "\n".join(faults), where="site.yaml: source.phenotypes.columns",
            remedy="mend the keys named above; values indexed to body size are other quantities",
        )  # fmt: skip


def read_local_tables(config: LocalSource, *, withdrawn: frozenset[str], notes: Counter[str]) -> LocalTables:
    """Read all tables of a document.

    Args:
        config: of the site.
        withdrawn: patients to pass over.
        notes: counts what was doubtful.

    Raises:
        FolderMissingError: a table is not there.
        SourceInvalidError: a table lacks a column, or holds something other than was declared.
    """
    tables = LocalTables()
    if config.phenotypes is not None:
        _read_phenotypes(config.phenotypes, tables.phenotypes, withdrawn=withdrawn, notes=notes)
    if config.diagnoses is not None:
        table = config.diagnoses
        declared = DiagnosisTable(table=table, icd10="icd10") if isinstance(table, Path) else table
        _read_diagnoses(declared, tables.diseases, withdrawn=withdrawn)
    if config.people is not None:
        _read_people(config.people, tables, withdrawn=withdrawn, notes=notes)
    return tables


def _read_phenotypes(
    declared: Path | PhenotypeTable,
    rows: dict[Visit, np.ndarray],
    *,
    withdrawn: frozenset[str],
    notes: Counter[str],
) -> None:
    key = "source.phenotypes"
    if isinstance(declared, Path):
        path, patient, visit = declared, "patient", "visit"
        factors = {
            name: (FIELD_OF_COLUMN[name], 1.0)
            for name in column_names(path, key=key)
            if name in FIELD_OF_COLUMN
        }
        if not factors:
            raise SourceInvalidError(
                "no phenotype column was found; looked for f24100 to f24181", where=f"site.yaml: {key}",
                remedy="name the columns by their UK Biobank field, or declare what yours are called",
            )  # fmt: skip
    else:
        path, patient, visit = declared.table, declared.patient, declared.visit or ""
        factors = _factors(declared)
    cells = PhenotypeCells(factors, key=key)
    wanted = (patient, *([visit] if visit else []), *factors)
    for piece in read_columns(path, key=key, columns=tuple(dict.fromkeys(wanted))):
        people = [identifier(cell) for cell in piece[patient]]
        visits = [identifier(cell) for cell in piece[visit]] if visit else [EVERY_VISIT] * len(people)
        for person, number, row in zip(people, visits, cells.values(piece), strict=True):
            if person not in withdrawn and not np.isnan(row).all():
                rows[person, number] = row
    cells.check_units()
    if cells.implausible:
        notes[IMPLAUSIBLE] += cells.implausible


def _factors(table: PhenotypeTable) -> dict[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = {}
    for number, declared in table.columns.items():
        factor = factor_from(declared.unit, PHENOTYPES[number - FIRST_FIELD])
        if factor is not None:  # check_units has refused the others
            found[declared.column] = (number, factor)
    return found


def _read_diagnoses(
    table: DiagnosisTable, diseases: dict[str, dict[str, float]], *, withdrawn: frozenset[str]
) -> None:
    """A flag column alone decides its disease or says its subtype; codes speak for those that have none."""
    key = "source.diagnoses"
    if table.icd10 is not None:
        book = CodeBook({str(name): codes for name, codes in table.diseases.items()})
        marks = read_marks(
            table.table,
            key=key,
            patient=table.patient,
            icd10=table.icd10,
            book=book,
            separator=table.separator,
        )
        for person, found in marks.items():
            if person not in withdrawn:
                said = book.said(found)
                diseases[person] = {name: label for name, label in said.items() if name not in table.flags}
    if table.flags:
        meanings = {
            disease: (flag.column, _keys(flag.yes), _keys(flag.no)) for disease, flag in table.flags.items()
        }
        columns = (table.patient, *(column for column, _, _ in meanings.values()))
        for piece in read_columns(table.table, key=key, columns=tuple(dict.fromkeys(columns))):
            people = [identifier(cell) for cell in piece[table.patient]]
            for disease, (column, yes, no) in meanings.items():
                _add_flags(diseases, disease, people, piece[column], yes=yes, no=no, withdrawn=withdrawn)
    for person, said in diseases.items():
        diseases[person] = settle_subtypes(said)


def _add_flags(
    diseases: dict[str, dict[str, float]],
    disease: str,
    people: list[str],
    cells: list[str],
    *,
    yes: frozenset[str],
    no: frozenset[str],
    withdrawn: frozenset[str],
) -> None:
    """A yes in any row of a person stands, a no only where there is no yes; else nothing is known."""
    for person, cell in zip(people, cells, strict=True):
        value = cell_key(cell)
        if person not in withdrawn and (value in yes or value in no):
            labels = diseases.setdefault(person, {})
            labels[disease] = max(labels.get(disease, 0.0), float(value in yes))


def _read_people(
    table: PeopleTable, tables: LocalTables, *, withdrawn: frozenset[str], notes: Counter[str]
) -> None:
    sex = table.sex
    female, male = (_keys(sex.female), _keys(sex.male)) if sex else (frozenset(), frozenset())
    optional = (table.visit, table.age, sex.column if sex else None)
    columns = tuple(dict.fromkeys((table.patient, *(name for name in optional if name))))
    for piece in read_columns(table.table, key="source.people", columns=columns):
        for place, cell in enumerate(piece[table.patient]):
            person = identifier(cell)
            if person in withdrawn:
                continue
            key = (person, identifier(piece[table.visit][place]) if table.visit else EVERY_VISIT)
            age = age_years(piece[table.age][place], notes=notes) if table.age else None
            if age is not None:
                tables.ages[key] = age
            found = sex_of(cell_key(piece[sex.column][place]), female=female, male=male) if sex else None
            if found is not None:
                tables.sexes[key] = found


def _keys(cells: tuple[Cell, ...]) -> frozenset[str]:
    return frozenset(cell_key(cell) for cell in cells)


def table_paths(config: LocalSource) -> Mapping[str, Path]:
    """Key of the document to path of every table and list that is declared."""
    declared = {
        "index": config.index_table.table if config.index_table else None,
        "phenotypes": _path(config.phenotypes),
        "diagnoses": _path(config.diagnoses),
        "people": config.people.table if config.people else None,
        "withdrawals": config.withdrawals,
    }
    return {key: path for key, path in declared.items() if path is not None}


def _path(declared: Path | PhenotypeTable | DiagnosisTable | None) -> Path | None:
    return declared if declared is None or isinstance(declared, Path) else declared.table
