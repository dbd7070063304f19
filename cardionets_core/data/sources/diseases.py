"""ICD-10 codes to the five diseases (SCIENCE section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cardionets_core.data.records import DISEASES
from cardionets_core.data.sources.codes import codes_in
from cardionets_core.data.sources.tables import identifier, read_columns

ICD10_PREFIXES: dict[str, tuple[str, ...]] = {
    "cad": ("I20", "I21", "I22", "I23", "I24", "I25"),
    "cm": ("I42", "I43"),
    "hf": ("I50",),
    "pc": ("I30", "I31", "I32"),
    "ph": ("I270", "I272"),
}
_CIRCULATORY = 1 << len(DISEASES)


def normalise_code(code: str) -> str:
    """Upper case, without dot and blanks, without the placeholder X at the end and without a title."""
    first = code.strip().partition(" ")[0]
    return first.upper().replace(".", "").rstrip("X")


class CodeBook:
    """Which codes stand for which disease at one site.

    A person's codes are folded into one small number, their marks: a bit a disease and one for any code of
    the circulatory chapter. Marks of several cells, rows or tables are joined with ``|``.
    """

    def __init__(self, own: Mapping[str, Iterable[str]] | None = None) -> None:
        """Take the standard lists, but for diseases in ``own`` the codes given there."""
        declared = {disease: tuple(codes) for disease, codes in (own or {}).items()}
        self._prefixes = {
            disease: tuple(normalise_code(code) for code in declared.get(disease, ICD10_PREFIXES[disease]))
            for disease in DISEASES
        }
        self._known: dict[str, int] = {}
        self._labels: dict[int, dict[str, float]] = {}

    def marks(self, codes: Iterable[str]) -> int:
        """Marks of some codes, with or without dots; 0 where none of them stands for anything here."""
        found = 0
        known = self._known
        for code in codes:
            if code not in known:
                known[code] = self._mark(normalise_code(code))
            found |= known[code]
        return found

    def labels(self, marks: int) -> dict[str, float]:
        """Labels of a person who was assessed; the same object for the same marks, not to be changed.

        A disease is 1 where one of its codes stands. It is 0 only where no code of the circulatory chapter
        (I) stands at all: with another code of that chapter it stays unknown.
        """
        if marks not in self._labels:
            present = {disease: 1.0 for place, disease in enumerate(DISEASES) if marks >> place & 1}
            absent = {} if marks & _CIRCULATORY else dict.fromkeys(DISEASES, 0.0)
            self._labels[marks] = absent | present
        return self._labels[marks]

    def _mark(self, code: str) -> int:
        mark = _CIRCULATORY if code.startswith("I") else 0
        for place, disease in enumerate(DISEASES):
            if code and code.startswith(self._prefixes[disease]):
                mark |= 1 << place
        return mark


def read_marks(
    path: Path, *, key: str, patient: str, icd10: str, book: CodeBook, separator: str = ";"
) -> dict[str, int]:
    """Person to marks, from a table of one or more rows a person with several codes in a cell.

    A person with a row and no code was assessed and has none; a person without a row was not assessed.
    """
    marks: dict[str, int] = {}
    for piece in read_columns(path, key=key, columns=(patient, icd10)):
        for person, cell in zip(map(identifier, piece[patient]), piece[icd10], strict=True):
            marks[person] = marks.get(person, 0) | book.marks(codes_in(cell, separator=separator))
    return marks
