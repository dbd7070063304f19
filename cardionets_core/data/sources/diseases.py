"""ICD-10 codes to the five diseases (SCIENCE section 9)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cardionets_core.data.records import DISEASES
from cardionets_core.data.sources.tables import read_table

ICD10_PREFIXES: dict[str, tuple[str, ...]] = {
    "cad": ("I20", "I21", "I22", "I23", "I24", "I25"),
    "cm": ("I42", "I43"),
    "hf": ("I50",),
    "pc": ("I30", "I31", "I32"),
    "ph": ("I270", "I272"),
}


def normalise_code(code: str) -> str:
    """Upper case, without dot and blanks, without the placeholder X at the end."""
    return code.strip().upper().replace(".", "").rstrip("X")


def diseases_of(codes: Iterable[str]) -> dict[str, float]:
    """Labels of a person who was assessed.

    A disease is 1 where one of its codes stands. It is 0 only where no code of the circulatory chapter (I)
    stands at all: with another code of that chapter it stays unknown.

    Args:
        codes: ICD-10, with or without dots; may be empty.
    """
    present = {normalise_code(code) for code in codes} - {""}
    circulatory = any(code.startswith("I") for code in present)
    labels: dict[str, float] = {}
    for disease in DISEASES:
        if any(code.startswith(ICD10_PREFIXES[disease]) for code in present):
            labels[disease] = 1.0
        elif not circulatory:
            labels[disease] = 0.0
    return labels


def read_diagnoses(path: Path, *, key: str, id_column: str) -> dict[str, dict[str, float]]:
    """Person to labels, from a CSV of one or more rows a person; codes in a cell are split by ``;``.

    A person with a row and no code was assessed and has none; a person without a row was not assessed.
    """
    codes: dict[str, set[str]] = {}
    for row in read_table(path, key=key, columns=(id_column, "icd10")):
        codes.setdefault(row[id_column], set()).update(row["icd10"].split(";"))
    return {person: diseases_of(found) for person, found in codes.items()}
