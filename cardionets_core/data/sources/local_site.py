"""A hospital's own export: a folder of ECGs, a folder of cines, an index (step 2 of the walk).

``index.csv`` has the columns patient, visit, ecg, cine; a cell of the last two is a file name inside its
folder or empty. ``phenotypes.csv`` has patient, visit and columns f24100 to f24181; ``diagnoses.csv``
patient, icd10.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np

from cardionets_core.config.site import EcgFiles, LocalSource
from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.readers.csv_ecg import read_csv_ecg
from cardionets_core.data.readers.nifti_cine import read_nifti_cine
from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.records import Person, Read, Recording
from cardionets_core.data.sources.base import beside, require_file, require_folder
from cardionets_core.data.sources.diseases import read_diagnoses
from cardionets_core.data.sources.tables import phenotype_row, phenotype_values, read_table
from cardionets_core.errors import SourceInvalidError

_SUFFIX = {"wfdb": ".hea", "csv": ".csv"}
_FIELD_OF_COLUMN = {
    spelling: phenotype.field
    for phenotype in PHENOTYPES
    for spelling in (f"f{phenotype.field}", str(phenotype.field), phenotype.name)
}


class LocalSiteSource:
    """WFDB or CSV recordings and NIfTI cines, tied by an index."""

    def __init__(self, config: LocalSource) -> None:
        self._config = config
        self.refusals: Counter[str] = Counter()

    def recordings(self) -> list[Recording]:
        """See ``Source``."""
        self.refusals.clear()
        found = self._unindexed() if self._config.index is None else self._indexed(self._config.index)
        owners: dict[Path, tuple[str, str]] = {}
        for recording in found:
            owner = (recording.patient, recording.visit)
            if owners.setdefault(recording.path, owner) != owner:
                raise SourceInvalidError(
                    "the index gives one file to two people or visits", where="site.yaml: source.index",
                    remedy="a recording belongs to one visit of one person; mend the index",
                )  # fmt: skip
        if not found:
            raise SourceInvalidError(
                "the site lists no recording", where="site.yaml: source",
                remedy="fill the index, or name the folder that holds the files",
            )  # fmt: skip
        return found

    def read(self, recording: Recording) -> Read:
        """See ``Source``."""
        if recording.kind == "cine":
            return (read_nifti_cine(recording.path),)
        ecg = self._config.ecg
        if ecg is not None and ecg.format == "csv" and ecg.rate_hz is not None and ecg.unit is not None:
            return read_csv_ecg(recording.path, rate_hz=ecg.rate_hz, unit=ecg.unit)
        return read_wfdb(recording.path)

    def person(self, patient: str, visit: str) -> Person:
        """See ``Source``; diagnoses belong to the person, phenotypes to the visit."""
        return Person(
            phenotypes=phenotype_values(self._phenotypes.get((patient, visit))),
            diseases=self._diseases.get(patient, {}),
        )

    def files(self) -> list[tuple[str, Path]]:
        """See ``Source``."""
        config = self._config
        found: list[tuple[str, Path]] = []
        for key, table in (("index", config.index), ("phenotypes", config.phenotypes),
                           ("diagnoses", config.diagnoses)):  # fmt: skip
            if table:
                found.append((key, require_file(table, key=f"source.{key}")))
        for kind, part in (("ecg", config.ecg), ("cmr", config.cmr)):
            if part is not None:
                folder = require_folder(part.folder, key=f"source.{kind}.folder")
                named = [path for path in sorted(folder.rglob("*")) if _is_recording(path, form=part.format)]
                found += [(f"{kind}/{path.relative_to(folder).as_posix()}", path) for path in named]
        return found

    def _unindexed(self) -> list[Recording]:
        ecg = self._ecg()
        folder = require_folder(ecg.folder, key="source.ecg.folder")
        paths = sorted(path for path in folder.rglob(f"*{_SUFFIX[ecg.format]}") if path.is_file())
        if not paths:
            raise SourceInvalidError(
                f"{folder} holds no {_SUFFIX[ecg.format]} file", where="site.yaml: source.ecg",
                remedy="mend folder or format",
            )  # fmt: skip
        names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
        return [
            Recording(patient=name, visit="1", kind="ecg", path=path)
            for name, path in zip(names, paths, strict=True)
        ]

    def _indexed(self, index: Path) -> list[Recording]:
        found: list[Recording] = []
        ecg, cmr = self._config.ecg, self._config.cmr
        if ecg is not None:
            require_folder(ecg.folder, key="source.ecg.folder")
        if cmr is not None:
            require_folder(cmr.folder, key="source.cmr.folder")
        wanted = [name for name, part in (("ecg", ecg), ("cine", cmr)) if part is not None]
        for row in read_table(index, key="source.index", columns=("patient", "visit", *wanted)):
            if not row["patient"]:
                raise SourceInvalidError(
                    "a row of the index names no patient", where="site.yaml: source.index"
                )
            if ecg is not None and row["ecg"]:
                name = row["ecg"]
                suffix = _SUFFIX[ecg.format]
                name = name if name.lower().endswith(suffix) else f"{name}{suffix}"
                self._add(found, row, kind="ecg", path=beside(ecg.folder, name))
            if cmr is not None and row["cine"]:
                self._add(found, row, kind="cine", path=beside(cmr.folder, row["cine"]))
        return found

    def _add(self, found: list[Recording], row: dict[str, str], *, kind: str, path: Path | None) -> None:
        if path is None:
            self.refusals[f"{kind}-file-missing"] += 1
        elif kind == "ecg":
            found.append(Recording(patient=row["patient"], visit=row["visit"], kind="ecg", path=path))
        else:
            found.append(Recording(patient=row["patient"], visit=row["visit"], kind="cine", path=path))

    def _ecg(self) -> EcgFiles:
        if self._config.ecg is None:
            raise SourceInvalidError(
                "without an index there must be a folder of ECGs", where="site.yaml: source"
            )
        return self._config.ecg

    @cached_property
    def _phenotypes(self) -> dict[tuple[str, str], np.ndarray]:
        path = self._config.phenotypes
        if path is None:
            return {}
        rows: dict[tuple[str, str], np.ndarray] = {}
        key = "source.phenotypes"
        columns: dict[str, int] | None = None
        keep = _FIELD_OF_COLUMN.__contains__
        for row in read_table(path, key=key, columns=("patient", "visit"), keep=keep):
            if columns is None:
                columns = {name: _FIELD_OF_COLUMN[name] for name in row if name in _FIELD_OF_COLUMN}
                if not columns:
                    raise SourceInvalidError(
                        "no phenotype column was found; looked for f24100 to f24181",
                        where=f"site.yaml: {key}",
                        remedy="name the columns by their UK Biobank field",
                    )  # fmt: skip
            values = phenotype_row({field: row[name] for name, field in columns.items()}, key=key)
            if values is not None:
                rows[row["patient"], row["visit"]] = values
        return rows

    @cached_property
    def _diseases(self) -> dict[str, dict[str, float]]:
        path = self._config.diagnoses
        return read_diagnoses(path, key="source.diagnoses", id_column="patient") if path else {}


def _is_recording(path: Path, *, form: str) -> bool:
    """Whether a file belongs to a recording of the format: other files may lie in its folder and change."""
    if form == "wfdb":
        return path.with_suffix(".hea").is_file() and path.is_file()
    return (
        path.name.lower().endswith((".nii", ".nii.gz") if form == "nifti" else (".csv",)) and path.is_file()
    )
