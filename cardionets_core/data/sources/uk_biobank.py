"""UK Biobank downloads as they lie on disk (step 2 of the walk; FORMATS sections 1 to 3).

The file names carry person and visit; the newest withdrawal list is applied before anything is read.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np

from cardionets_core.config.site import UkBiobankSource
from cardionets_core.data.readers.cardiosoft_xml import read_cardiosoft_xml
from cardionets_core.data.readers.dicom_cine_zip import read_dicom_cine_zip
from cardionets_core.data.records import Person, Read, Recording
from cardionets_core.data.sources.base import require_file, require_folder
from cardionets_core.data.sources.diseases import read_diagnoses
from cardionets_core.data.sources.tables import phenotype_values
from cardionets_core.data.sources.ukb_tables import read_phenotypes, read_withdrawals, withdrawal_files
from cardionets_core.errors import SourceInvalidError

_ECG = re.compile(r"(?P<eid>\d+)_20205_(?P<instance>\d+)_(?P<array>\d+)\.xml", re.I)
_CINE = re.compile(r"(?P<eid>\d+)_20208_(?P<instance>\d+)_(?P<array>\d+)\.zip", re.I)


class UkBiobankFolders:
    """Fields 20205 and 20208, the phenotype table, diagnoses and withdrawals."""

    def __init__(self, config: UkBiobankSource) -> None:
        self._config = config
        self.refusals: Counter[str] = Counter()

    def recordings(self) -> list[Recording]:
        """See ``Source``."""
        self.refusals.clear()
        withdrawn = read_withdrawals(self._config.withdrawals) if self._config.withdrawals else frozenset()
        listed: list[Recording] = []
        for path, match in self._named(self._config.ecg, _ECG, key="source.ecg"):
            listed.append(Recording(patient=match["eid"], visit=match["instance"], kind="ecg", path=path))
        if self._config.cmr:
            for path, match in self._named(self._config.cmr, _CINE, key="source.cmr"):
                listed.append(
                    Recording(patient=match["eid"], visit=match["instance"], kind="cine", path=path)
                )
        kept = [recording for recording in listed if recording.patient not in withdrawn]
        if len(kept) < len(listed):
            self.refusals["withdrawn"] = len(listed) - len(kept)
        return kept

    def read(self, recording: Recording) -> Read:
        """See ``Source``."""
        if recording.kind == "cine":
            return (read_dicom_cine_zip(recording.path),)
        return read_cardiosoft_xml(recording.path)

    def person(self, patient: str, visit: str) -> Person:
        """See ``Source``; diagnoses belong to the person, phenotypes to the visit."""
        return Person(
            phenotypes=phenotype_values(self._phenotypes.get((patient, visit))),
            diseases=self._diseases.get(patient, {}),
        )

    def files(self) -> list[tuple[str, Path]]:
        """See ``Source``."""
        config = self._config
        found = [(f"ecg/{path.name}", path) for path, _ in self._named(config.ecg, _ECG, key="source.ecg")]
        if config.cmr:
            found += [
                (f"cmr/{path.name}", path) for path, _ in self._named(config.cmr, _CINE, key="source.cmr")
            ]
        for key, table in (("table", config.table), ("diagnoses", config.diagnoses)):
            if table:
                found.append((key, require_file(table, key=f"source.{key}")))
        if config.withdrawals:
            found += [(f"withdrawals/{path.name}", path) for path in withdrawal_files(config.withdrawals)]
        return found

    @cached_property
    def _phenotypes(self) -> dict[tuple[str, str], np.ndarray]:
        return read_phenotypes(self._config.table) if self._config.table else {}

    @cached_property
    def _diseases(self) -> dict[str, dict[str, float]]:
        path = self._config.diagnoses
        return read_diagnoses(path, key="source.diagnoses", id_column="eid") if path else {}

    @staticmethod
    def _named(folder: Path, pattern: re.Pattern[str], *, key: str) -> list[tuple[Path, re.Match[str]]]:
        require_folder(folder, key=key)
        found = [
            (path, match) for path in sorted(folder.rglob("*")) if (match := pattern.fullmatch(path.name))
        ]
        if not found:
            field, suffix = ("20205", "xml") if pattern is _ECG else ("20208", "zip")
            raise SourceInvalidError(
                f"{folder} holds no file named <eid>_{field}_<instance>_<array>.{suffix}",
                where=f"site.yaml: {key}",
                remedy="name the folder of the bulk download; do not rename its files",
            )
        return found
