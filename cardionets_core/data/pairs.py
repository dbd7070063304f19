"""Visits: which recordings belong together (step 3 of the walk).

Comes in: the flat list of a source. Goes out: visits in an order that tells nothing of the identifiers. An
ECG and a cine are a pair when person and visit are the same (FORMATS section 8, rule 2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cardionets_core.data.pseudonym import pseudonym
from cardionets_core.data.records import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """All recordings of one visit of one person.

    Attributes:
        pseudonym: of the person.
        patient: the hospital's identifier; stays in this process.
        visit: the hospital's name of the visit; stays in this process.
        ecgs: in the order of their paths.
        cines: in the order of their paths; the last that can be read counts.
    """

    pseudonym: str
    patient: str
    visit: str
    ecgs: tuple[Recording, ...]
    cines: tuple[Recording, ...]


def pair_visits(recordings: Iterable[Recording], *, key: bytes) -> list[Visit]:
    """Visits in the order of pseudonym and visit.

    Args:
        recordings: in any order; a recording that is listed twice counts once.
        key: the site's key.
    """
    groups: dict[tuple[str, str], dict[Recording, None]] = {}
    for recording in recordings:
        groups.setdefault((recording.patient, recording.visit), {})[recording] = None
    names = {patient: pseudonym(key, patient) for patient, _ in groups}
    ordered = sorted(groups, key=lambda pair: (names[pair[0]], _natural(pair[1])))
    return [
        Visit(
            pseudonym=names[patient],
            patient=patient,
            visit=visit,
            ecgs=_of_kind(groups[patient, visit], "ecg"),
            cines=_of_kind(groups[patient, visit], "cine"),
        )
        for patient, visit in ordered
    ]


def _of_kind(recordings: Iterable[Recording], kind: str) -> tuple[Recording, ...]:
    chosen = [recording for recording in recordings if recording.kind == kind]
    return tuple(sorted(chosen, key=lambda recording: recording.path.as_posix()))


def _natural(text: str) -> tuple[list[int], str]:
    """Sorts ``10`` after ``9``."""
    return [int(digits) for digits in re.findall(r"[0-9]+", text)], text
