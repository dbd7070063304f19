"""The ``source`` part of ``site.yaml`` for a hospital's own export: where files lie, and how they are keyed.

Formats, units and numbers of fields are checked against what the readers know when the source is opened: this
floor knows no reader. Paths are still as written; ``read_site`` makes them absolute.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from cardionets_core.config.read import Document

Disease = Literal["cad", "cm", "hf", "pc", "ph", "rcm", "dcm", "hcm"]
"""The five diseases, and the three subtypes of cardiomyopathy (``cm``)."""
Cell = bool | int | float | str

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def shape_of_value(value: Any) -> str:
    """Tag of a value that may be written in two ways; tags in brackets stay out of the errors' keys."""
    if isinstance(value, (str, Path)):
        return "(path)"
    return "(list)" if isinstance(value, (list, tuple)) else "(mapping)"


def check_pattern(pattern: str, *, placeholders: tuple[str, ...]) -> str:
    """The pattern, if its placeholders are known and the first of them is there.

    Raises:
        ValueError: says which placeholder is wrong.
    """
    found = _PLACEHOLDER.findall(pattern)
    if unknown := [name for name in found if name not in placeholders]:
        raise ValueError(
            f"knows no placeholder {{{unknown[0]}}}; there are "
            + ", ".join(f"{{{name}}}" for name in placeholders)
        )
    if placeholders[0] not in found:
        raise ValueError(f"needs {{{placeholders[0]}}}: it says whose file it is")
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise ValueError("is relative to its folder and stays inside it")
    return pattern


class _Files(Document):
    """What every folder of recordings declares."""

    format: str = Field(
        pattern=r"^[a-z0-9_]+$", description="a reader's name, or auto: recognised by content"
    )
    folder: Path
    pattern: str | None = Field(
        default=None,
        description="{patient}, {visit} and * as in glob, relative to folder; instead of an index",
    )

    @field_validator("pattern")
    @classmethod
    def _placeholders(cls, value: str | None) -> str | None:
        return value if value is None else check_pattern(value, placeholders=("patient", "visit"))


class EcgFiles(_Files):
    """A folder of ECGs. What the files do not say themselves must be declared."""

    rate_hz: float | None = Field(default=None, gt=0, le=100_000, description="samples per second")
    unit: Literal["mV", "uV", "V"] | None = None
    leads: tuple[str, ...] | None = Field(
        default=None, min_length=1, max_length=64, description="order of the rows or columns of bare arrays"
    )
    dataset: str | None = Field(default=None, min_length=1, description="name of the array inside a file")
    scale: float = Field(
        default=1.0, gt=0, le=1e6, description="multiplies the signal: the repair of a known wrong gain"
    )


class CineFiles(_Files):
    """A folder of cines."""

    view: Literal["4ch", "2ch", "3ch", "sax"] | None = Field(
        default=None, description="of files that do not name theirs"
    )
    third_axis: Literal["frames", "slices"] | None = Field(default=None, description="of 3-D NIfTI files")
    label_map: Literal["ukb", "acdc"] | None = Field(
        default=None, description="meaning of the labels of segmentations beside the images"
    )


class IndexTable(Document):
    """Which files belong to whom; the columns of parts that have a pattern are not needed."""

    table: Path
    patient: str = "patient"
    visit: str | None = Field(default="visit", description="null: one visit a person")
    ecg: str = "ecg"
    cine: str = "cine"


class PhenotypeColumn(Document):
    """One column of measured phenotypes."""

    column: str = Field(min_length=1)
    unit: str = Field(description="of the values; converted to the unit of the field")

    @field_validator("unit", mode="before")
    @classmethod
    def _number_one_is_a_unit(cls, value: Any) -> Any:
        return "1" if value == 1 and not isinstance(value, bool) else value


class PhenotypeTable(Document):
    """A table of measured phenotypes with columns of the hospital's own."""

    table: Path
    patient: str = "patient"
    visit: str | None = Field(default="visit", description="null: the values hold for every visit")
    columns: dict[int, PhenotypeColumn] = Field(min_length=1, description="number of the field to its column")


class FlagColumn(Document):
    """A yes-or-no column: it alone decides its disease or subtype; any other value is unknown."""

    column: str = Field(min_length=1)
    yes: tuple[Cell, ...] = Field(default=(1, "yes", "true"), min_length=1)
    no: tuple[Cell, ...] = (0, "no", "false")

    @model_validator(mode="after")
    def _one_meaning(self) -> FlagColumn:
        if {cell_key(cell) for cell in self.yes} & {cell_key(cell) for cell in self.no}:
            raise ValueError("a value cannot mean both yes and no")
        return self


class DiagnosisTable(Document):
    """A table of diagnoses: a column a disease or subtype, and ICD-10 codes for those that have none."""

    table: Path
    patient: str = "patient"
    icd10: str | None = Field(default=None, description="column of codes")
    separator: str = Field(default=";", min_length=1, description="between the codes of a cell")
    diseases: dict[Disease, tuple[str, ...]] = Field(
        default={}, description="beginnings of codes, instead of the standard ones of that disease"
    )
    flags: dict[Disease, FlagColumn] = Field(default={}, description="a column a disease")

    @model_validator(mode="after")
    def _says_something(self) -> DiagnosisTable:
        if self.icd10 is None and not self.flags:
            raise ValueError("give icd10 (a column of codes), flags (a column a disease), or both")
        if self.diseases and self.icd10 is None:
            raise ValueError("diseases names codes, so icd10 must name their column")
        if both := sorted(set(self.diseases) & set(self.flags)):
            raise ValueError(f"{both[0]} has a flag column, which alone decides it: leave its codes out")
        if any(not code.strip() for codes in self.diseases.values() for code in codes):
            raise ValueError("an empty code would stand for every code")
        return self


class SexColumn(Document):
    """A column of sex; any other value is unknown."""

    column: str = Field(min_length=1)
    female: tuple[Cell, ...] = Field(min_length=1)
    male: tuple[Cell, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_meaning(self) -> SexColumn:
        if {cell_key(cell) for cell in self.female} & {cell_key(cell) for cell in self.male}:
            raise ValueError("a value cannot mean both female and male")
        return self


class PeopleTable(Document):
    """Age and sex."""

    table: Path
    patient: str = "patient"
    visit: str | None = Field(default=None, description="null: the values hold for every visit")
    age: str | None = Field(default=None, description="column of the age in years at the visit")
    sex: SexColumn | None = None


def cell_key(value: Cell) -> str:
    """How a declared value and a table's cell are compared: as text, without case, 1.0 as 1."""
    text = str(value).strip().casefold()
    whole, point, rest = text.partition(".")
    return whole if point and not rest.strip("0") and whole.lstrip("-").isdigit() else text


def _either(what: str) -> Discriminator:
    return Discriminator(shape_of_value, custom_error_type="wrong_shape", custom_error_message=what)


_OneOrMoreEcgs = Annotated[
    Annotated[EcgFiles, Tag("(mapping)")] | Annotated[tuple[EcgFiles, ...], Tag("(list)")],
    _either("give {format, folder, ...}, or a list of such"),
]
_OneOrMoreCines = Annotated[
    Annotated[CineFiles, Tag("(mapping)")] | Annotated[tuple[CineFiles, ...], Tag("(list)")],
    _either("give {format, folder, ...}, or a list of such"),
]
_Index = Annotated[
    Annotated[Path, Tag("(path)")] | Annotated[IndexTable, Tag("(mapping)")],
    _either("give a path, or {table, patient, visit, ecg, cine}"),
]
_Phenotypes = Annotated[
    Annotated[Path, Tag("(path)")] | Annotated[PhenotypeTable, Tag("(mapping)")],
    _either("give a path, or {table, patient, visit, columns}"),
]
_Diagnoses = Annotated[
    Annotated[Path, Tag("(path)")] | Annotated[DiagnosisTable, Tag("(mapping)")],
    _either("give a path, or {table, patient, icd10 or flags}"),
]


class LocalSource(Document):
    """A hospital's own export.

    Each folder is keyed by its pattern or else by the index. One folder of ECGs alone may do without either:
    then every file counts as a patient of its own.
    """

    kind: Literal["local_site"]
    ecg: _OneOrMoreEcgs | None = Field(default=None, description="a folder of ECGs, or a list of folders")
    cmr: _OneOrMoreCines | None = Field(default=None, description="a folder of cines, or a list of folders")
    index: _Index | None = Field(default=None, description="table: patient, visit, ecg, cine (file names)")
    phenotypes: _Phenotypes | None = Field(
        default=None, description="table: patient, visit, f24100 to f24181; or columns of your own"
    )
    diagnoses: _Diagnoses | None = Field(
        default=None, description="table: patient, icd10 (codes split by ;); or columns of your own"
    )
    people: PeopleTable | None = None
    withdrawals: Path | None = Field(default=None, description="file: one identifier of a person a line")

    @property
    def ecg_parts(self) -> tuple[EcgFiles, ...]:
        """The folders of ECGs, however they were written."""
        return self.ecg if isinstance(self.ecg, tuple) else (self.ecg,) if self.ecg else ()

    @property
    def cine_parts(self) -> tuple[CineFiles, ...]:
        """The folders of cines, however they were written."""
        return self.cmr if isinstance(self.cmr, tuple) else (self.cmr,) if self.cmr else ()

    @property
    def index_table(self) -> IndexTable | None:
        """The index with its columns, however it was written."""
        return IndexTable(table=self.index) if isinstance(self.index, Path) else self.index

    @model_validator(mode="after")
    def _everybody_has_a_name(self) -> LocalSource:
        parts = (*self.ecg_parts, *self.cine_parts)
        if not parts:
            raise ValueError("give ecg, cmr or both")
        unkeyed = [part for part in parts if part.pattern is None]
        if self.index is None and unkeyed and (len(parts) > 1 or self.cine_parts):
            raise ValueError(
                "who is who? Give an index, or a pattern with {patient} to each folder of ecg and cmr "
                "(one folder of ECGs alone needs neither: each file is a patient of its own)"
            )
        if self.index is not None and not unkeyed:
            raise ValueError("every folder has a pattern, so the index would not be used: leave one out")
        return self
