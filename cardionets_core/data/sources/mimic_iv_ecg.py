"""A MIMIC-IV-ECG tree (step 2 of the walk; FORMATS section 4).

``record_list.csv`` says what there is: the depth of the folders differs between releases. The person is the
subject, who may have hundreds of studies, so splits never follow the study.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cardionets_core.config.site import MimicSource
from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.records import VIEWS, Person, Read, Recording
from cardionets_core.data.sources.base import beside, require_file, require_folder, wfdb_companions
from cardionets_core.data.sources.diseases import CodeBook
from cardionets_core.data.sources.mimic_tables import (
    TIME_DIFFERS,
    TWO_NOTES,
    Machine,
    Studies,
    count_differing_times,
    count_studies_with_two_notes,
    read_machine,
    read_studies,
)
from cardionets_core.data.sources.tables import identifier, read_columns
from cardionets_core.data.sources.withdrawals import read_list
from cardionets_core.errors import SourceInvalidError

_KEY = "source.root"
_REPEATED = "row-repeated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tables:
    """The optional tables; None where a site does not have one."""

    studies: Studies | None
    machine: Machine | None


class MimicIvEcgSource:
    """``record_list.csv`` with its files, the machine's measurements, and the ICD lists of Ext-ICD."""

    def __init__(self, config: MimicSource, *, views: tuple[str, ...] = VIEWS) -> None:
        """Bind a document; there are no cines, so ``views`` changes nothing."""
        self._config = config
        self._book = CodeBook()
        self.refusals: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def recordings(self) -> list[Recording]:
        """See ``Source``. A study that the list names twice is listed once."""
        self.refusals.clear()
        found: list[Recording] = []
        subjects: dict[str, str] = {}
        rows = 0
        for piece in read_columns(self._list(), key=_KEY, columns=("subject_id", "study_id", "path")):
            for subject, study, path in zip(
                piece["subject_id"], piece["study_id"], piece["path"], strict=True
            ):
                rows += 1
                patient, visit = identifier(subject), identifier(study)
                if visit in subjects and subjects[visit] == patient:
                    continue
                if subjects.setdefault(visit, patient) != patient:
                    raise SourceInvalidError(
                        "record_list.csv gives one study to two subjects", where=f"site.yaml: {_KEY}",
                        remedy="use the list as released",
                    )  # fmt: skip
                header = beside(self._config.root, f"{path.removesuffix('.hea')}.hea") if path else None
                if patient in self._withdrawn:
                    self.refusals["withdrawn"] += 1
                elif header is None:
                    self.refusals["ecg-file-missing"] += 1
                else:
                    found.append(Recording(patient=patient, visit=visit, kind="ecg", path=header))
        if not subjects:
            raise SourceInvalidError(
                "record_list.csv names no record", where=f"site.yaml: {_KEY}",
                remedy="name the folder that holds the whole record_list.csv and files/",
            )  # fmt: skip
        self._note(_REPEATED, rows - len(subjects))
        return found

    def read(self, recording: Recording) -> Read:
        """See ``Source``."""
        return read_wfdb(recording.path)

    def parts(self, recording: Recording) -> list[Path]:
        """See ``Source``."""
        return wfdb_companions(recording.path)

    def person(self, patient: str, visit: str) -> Person:
        """See ``Source``; the diagnoses are those of the study's own stay."""
        studies = self._tables.studies
        if studies is None or patient in self._withdrawn:
            return Person()
        age, sex = studies.age_and_sex(visit)
        return Person(diseases=studies.diseases(visit, book=self._book), age_years=age, sex=sex)

    def measurements(self, study: str) -> dict[str, float]:
        """What the cart measured of a study: ``rr_interval_ms``, ``qrs_axis_degrees`` and seven more.

        NaN where missing or a sentinel; empty where there is no table or no such study. These are the
        machine's numbers, not a physician's.
        """
        machine = self._tables.machine
        return {} if machine is None else machine.of(study)

    def tables(self) -> list[tuple[str, Path]]:
        """See ``Source``."""
        config = self._config
        found = [("root", self._list())]
        found += [("root", path) for path in (self._machine_path, self._links_path) if path.is_file()]
        if config.diagnoses is not None:
            found.append(("diagnoses", require_file(config.diagnoses, key="source.diagnoses")))
        if config.withdrawals is not None:
            found.append(("withdrawals", require_file(config.withdrawals, key="source.withdrawals")))
        return found

    def settings(self) -> dict[str, Any]:
        """See ``Source``."""
        return {"kind": self._config.kind}

    @property
    def _machine_path(self) -> Path:
        return self._config.root / "machine_measurements.csv"

    @property
    def _links_path(self) -> Path:
        return self._config.root / "waveform_note_links.csv"

    def _list(self) -> Path:
        root = require_folder(self._config.root, key=_KEY)
        return require_file(root / "record_list.csv", key=_KEY)

    @cached_property
    def _withdrawn(self) -> frozenset[str]:
        return read_list(self._config.withdrawals, numbers=True)

    @cached_property
    def _tables(self) -> _Tables:
        studies = machine = None
        if self._config.diagnoses is not None:
            studies = read_studies(
                self._config.diagnoses,
                key="source.diagnoses",
                book=self._book,
                withdrawn=self._withdrawn,
                notes=self.notes,
            )
        if self._machine_path.is_file():
            machine = read_machine(self._machine_path, key=_KEY, notes=self.notes)
            self._note(TIME_DIFFERS, count_differing_times(self._list(), machine, key=_KEY))
        if self._links_path.is_file():
            self._note(TWO_NOTES, count_studies_with_two_notes(self._links_path, key=_KEY))
        return _Tables(studies=studies, machine=machine)

    def _note(self, name: str, count: int) -> None:
        if count:
            self.notes[name] = count
