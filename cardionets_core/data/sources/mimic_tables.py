"""The tables beside a MIMIC-IV-ECG tree (step 2 of the walk; FORMATS section 4).

Eight hundred thousand rows a table: what is kept of each is a few bytes in arrays, sorted by study. The text
of the machine's reports and the names of notes are never kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardionets_core.data.sources.codes import literal_codes
from cardionets_core.data.sources.diseases import CodeBook
from cardionets_core.data.sources.people_cells import OVER_89, Sex, age_years
from cardionets_core.data.sources.tables import identifier, read_columns
from cardionets_core.errors import SourceInvalidError

TWO_NOTES, TIME_DIFFERS, SENTINEL = "two-notes", "time-differs", "measurement-sentinel"
MEASUREMENTS: dict[str, str] = {
    "rr_interval": "rr_interval_ms",
    "p_onset": "p_onset_ms",
    "p_end": "p_end_ms",
    "qrs_onset": "qrs_onset_ms",
    "qrs_end": "qrs_end_ms",
    "t_end": "t_end_ms",
    "p_axis": "p_axis_degrees",
    "qrs_axis": "qrs_axis_degrees",
    "t_axis": "t_axis_degrees",
}
_SENTINELS = np.array([29999.0, 32767.0, -32768.0, 65535.0])
_ANCHOR_OVER_89 = 91.0
_ASSESSED = 1 << 14
_SEXES: tuple[Sex | None, ...] = (None, "F", "M")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Studies:
    """What Ext-ICD says of each study.

    Attributes:
        study: int64 [n], ascending, each once.
        marks: int16 [n]: marks of the ``CodeBook``, and whether any diagnosis was recorded.
        age_years: float32 [n], NaN where unknown.
        sex: uint8 [n]: 0 unknown, 1 female, 2 male.
    """

    study: np.ndarray
    marks: np.ndarray
    age_years: np.ndarray
    sex: np.ndarray

    def diseases(self, study: str, *, book: CodeBook) -> dict[str, float]:
        """Labels; empty where nothing was recorded, which is not "healthy"."""
        place = _place(self.study, study)
        marks = 0 if place is None else int(self.marks[place])
        return dict(book.labels(marks & ~_ASSESSED)) if marks & _ASSESSED else {}

    def age_and_sex(self, study: str) -> tuple[float | None, Sex | None]:
        """Age in years and sex; None where unknown."""
        place = _place(self.study, study)
        if place is None:
            return None, None
        age = float(self.age_years[place])
        return (None if np.isnan(age) else age), _SEXES[int(self.sex[place])]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Machine:
    """What the cart measured.

    Attributes:
        study: int64 [n], ascending, each once.
        values: float32 [n, 9], NaN where missing; columns as in ``MEASUREMENTS``.
        time: int64 [n], a hash of the time as text.
    """

    study: np.ndarray
    values: np.ndarray
    time: np.ndarray

    def of(self, study: str) -> dict[str, float]:
        """Name with unit to value, NaN where missing; empty where the table has no such study."""
        place = _place(self.study, study)
        if place is None:
            return {}
        return dict(zip(MEASUREMENTS.values(), map(float, self.values[place]), strict=True))


def read_studies(
    path: Path, *, key: str, book: CodeBook, withdrawn: frozenset[str], notes: Counter[str]
) -> Studies:
    """Read ``records_w_diag_icd10.csv``.

    Age is that of the row; it is missing where the anchor age is 91, which stands for "over 89".

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: it lacks ``study_id`` or ``all_diag_all``.
    """
    columns, more = ("study_id", "all_diag_all"), {"subject_id", "gender", "age", "anchor_age"}
    studies, marks, ages, sexes = [], [], [], []
    for piece in read_columns(path, key=key, columns=columns, keep=more.__contains__):
        rows = len(piece["study_id"])
        nothing = [""] * rows
        studies.append(_numbers(piece["study_id"], key=key))
        marks.append(np.array([_marks(cell, book) for cell in piece["all_diag_all"]], dtype=np.int16))
        genders = piece.get("gender", nothing)
        sexes.append(np.array([1 if g == "F" else 2 if g == "M" else 0 for g in genders], dtype=np.uint8))
        subjects = piece.get("subject_id", nothing)
        kept = np.array([identifier(subject) not in withdrawn for subject in subjects], dtype=bool)
        age = [
            _age(cell, anchor, notes=notes) if stays else np.nan
            for cell, anchor, stays in zip(
                piece.get("age", nothing), piece.get("anchor_age", nothing), kept, strict=True
            )
        ]
        ages.append(np.array(age, dtype=np.float32))
        for parts in (studies, marks, ages, sexes):
            parts[-1] = parts[-1][kept]
    study = np.concatenate(studies)
    order = np.argsort(study, kind="stable")
    study, first = np.unique(study[order], return_index=True)
    joined = np.concatenate(marks)[order]
    return Studies(
        study=study,
        marks=np.bitwise_or.reduceat(joined, first) if len(first) else joined,
        age_years=np.concatenate(ages)[order][first],
        sex=np.concatenate(sexes)[order][first],
    )


def read_machine(path: Path, *, key: str, notes: Counter[str]) -> Machine:
    """Read ``machine_measurements.csv``; sentinels become NaN and are counted. The reports stay unread.

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: it lacks ``study_id``.
    """
    studies, values, times = [], [], []
    wanted = {"ecg_time", *MEASUREMENTS}
    for piece in read_columns(path, key=key, columns=("study_id",), keep=wanted.__contains__):
        studies.append(_numbers(piece["study_id"], key=key))
        times.append(_time_hashes(piece.get("ecg_time", [""] * len(piece["study_id"]))))
        table = np.full((len(studies[-1]), len(MEASUREMENTS)), np.nan)
        for column, name in enumerate(MEASUREMENTS):
            if name in piece:
                table[:, column] = [_value(cell) for cell in piece[name]]
        sentinel = np.isin(table, _SENTINELS)
        if sentinel.any():
            notes[SENTINEL] += int(sentinel.sum())
        table[sentinel] = np.nan
        values.append(table.astype(np.float32))
    study, first = np.unique(np.concatenate(studies), return_index=True)
    return Machine(study=study, values=np.concatenate(values)[first], time=np.concatenate(times)[first])


def count_differing_times(path: Path, machine: Machine, *, key: str) -> int:
    """Studies to which ``record_list.csv`` gives another time than the machine's table; the list wins."""
    differing = 0
    for piece in read_columns(path, key=key, columns=("study_id",), keep=lambda name: name == "ecg_time"):
        if "ecg_time" not in piece or not len(machine.study):
            continue
        studies, times = _numbers(piece["study_id"], key=key), _time_hashes(piece["ecg_time"])
        places = np.searchsorted(machine.study, studies).clip(max=len(machine.study) - 1)
        differing += int(((machine.study[places] == studies) & (machine.time[places] != times)).sum())
    return differing


def count_studies_with_two_notes(path: Path, *, key: str) -> int:
    """Studies that ``waveform_note_links.csv`` ties to more than one note."""
    studies = [
        _numbers(piece["study_id"], key=key) for piece in read_columns(path, key=key, columns=("study_id",))
    ]
    _, times = np.unique(np.concatenate(studies), return_counts=True)
    return int((times > 1).sum())


def _marks(cell: str, book: CodeBook) -> int:
    codes = literal_codes(cell)
    return book.marks(codes) | _ASSESSED if codes else 0


def _age(cell: str, anchor: str, *, notes: Counter[str]) -> float:
    if anchor and _value(anchor) >= _ANCHOR_OVER_89:
        notes[OVER_89] += 1
        return np.nan
    age = age_years(cell, notes=notes)
    return np.nan if age is None else age


def _value(cell: str) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return np.nan


def _numbers(cells: list[str], *, key: str) -> np.ndarray:
    try:
        return np.array([int(identifier(cell)) for cell in cells], dtype=np.int64)
    except (ValueError, OverflowError):
        raise SourceInvalidError(
            "a study_id is not a whole number", where=f"site.yaml: {key}", remedy="use the table as released"
        ) from None


def _time_hashes(cells: list[str]) -> np.ndarray:
    return np.array([hash(cell) for cell in cells], dtype=np.int64)


def _place(studies: np.ndarray, study: str) -> int | None:
    if not study.isdecimal() or len(study) > 18:
        return None
    place = int(np.searchsorted(studies, int(study)))
    return place if place < len(studies) and studies[place] == int(study) else None
