"""ICD-10 codes to the five diseases and the subtypes of cardiomyopathy (SCIENCE section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cardionets_core.data.records import DISEASES, LABELS, SUBTYPES
from cardionets_core.data.sources.codes import codes_in
from cardionets_core.data.sources.tables import identifier, read_columns

ICD10_PREFIXES: dict[str, tuple[str, ...]] = {
    "cad": ("I20", "I21", "I22", "I23", "I24", "I25"),
    "cm": ("I42", "I43"),
    "hf": ("I50",),
    "pc": ("I30", "I31", "I32"),
    "ph": ("I270", "I272"),
    "rcm": ("I425",),
    "dcm": ("I420",),
    "hcm": ("I421", "I422"),
}
_CIRCULATORY = 1 << len(LABELS)


def normalise_code(code: str) -> str:
    """Upper case, without dot and blanks, without the placeholder X at the end and without a title."""
    first = code.strip().partition(" ")[0]
    return first.upper().replace(".", "").rstrip("X")


def settle_subtypes(said: Mapping[str, float]) -> dict[str, float]:
    """Labels in which the subtypes say which cardiomyopathy it is, or nothing.

    Args:
        said: diseases as they are; each subtype that a code or a table says is there is 1.

    Returns:
        The same diseases. One subtype is 1 and two are 0 where exactly one was said and ``cm`` is not 0: a
        person with two of them, with another cardiomyopathy or with none has no known subtype.
    """
    found = [name for name in SUBTYPES if said.get(name) == 1.0]
    labels = {name: label for name, label in said.items() if name not in SUBTYPES}
    if len(found) == 1 and said.get("cm") != 0.0:
        labels |= {name: float(name == found[0]) for name in SUBTYPES}
    return labels


class CodeBook:
    """Which codes stand for which disease or subtype at one site.

    A person's codes are folded into one small number, their marks: a bit a label and one for any code of
    the circulatory chapter; under 512. Marks of several cells, rows or tables are joined with ``|``.
    """

    def __init__(self, own: Mapping[str, Iterable[str]] | None = None) -> None:
        """Take the standard lists, but for labels in ``own`` the codes given there."""
        declared = {disease: tuple(codes) for disease, codes in (own or {}).items()}
        self._prefixes = {
            label: tuple(normalise_code(code) for code in declared.get(label, ICD10_PREFIXES[label]))
            for label in LABELS
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
        (I) stands at all: with another code of that chapter it stays unknown. Subtypes as in
        ``settle_subtypes``.
        """
        if marks not in self._labels:
            self._labels[marks] = settle_subtypes(self.said(marks))
        return self._labels[marks]

    def said(self, marks: int) -> dict[str, float]:
        """Diseases as in ``labels``, and 1 for each subtype of which a code stands: not settled yet."""
        present = {label: 1.0 for place, label in enumerate(LABELS) if marks >> place & 1}
        absent = {} if marks & _CIRCULATORY else dict.fromkeys(DISEASES, 0.0)
        return absent | present

    def _mark(self, code: str) -> int:
        mark = _CIRCULATORY if code.startswith("I") else 0
        for place, label in enumerate(LABELS):
            if code and code.startswith(self._prefixes[label]):
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
