"""A MIMIC-IV-ECG tree (step 2 of the walk; FORMATS section 4).

``record_list.csv`` says what there is: the depth of the folders differs between releases. The person is the
subject, who may have hundreds of studies, so splits never follow the study.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from cardionets_core.config.site import MimicSource
from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.records import Person, Read, Recording
from cardionets_core.data.sources.base import beside, require_file, require_folder, wfdb_companions
from cardionets_core.data.sources.diseases import diseases_of
from cardionets_core.data.sources.tables import read_table
from cardionets_core.errors import SourceInvalidError

_MAXIMUM_LIST_CHARACTERS = 20_000


class MimicIvEcgSource:
    """``record_list.csv`` with its files, and the ICD lists of MIMIC-IV-ECG-Ext-ICD."""

    def __init__(self, config: MimicSource) -> None:
        self._config = config
        self.refusals: Counter[str] = Counter()

    def recordings(self) -> list[Recording]:
        """See ``Source``."""
        self.refusals.clear()
        found = []
        for row in self._listed():
            header = self._header(row)
            if header is None:
                self.refusals["ecg-file-missing"] += 1
                continue
            found.append(Recording(patient=row["subject_id"], visit=row["study_id"], kind="ecg", path=header))
        if not found:
            raise SourceInvalidError(
                "record_list.csv names no record", where="site.yaml: source.root",
                remedy="name the folder that holds the whole record_list.csv and files/",
            )  # fmt: skip
        return found

    def read(self, recording: Recording) -> Read:
        """See ``Source``."""
        return read_wfdb(recording.path)

    def person(self, patient: str, visit: str) -> Person:
        """See ``Source``; the diagnoses are those of the study's own stay."""
        return Person(diseases=self._diseases.get(visit, {}))

    def files(self) -> list[tuple[str, Path]]:
        """See ``Source``."""
        found = [("record_list.csv", self._list_path())]
        if self._config.diagnoses:
            found.append(("diagnoses", require_file(self._config.diagnoses, key="source.diagnoses")))
        for row in self._listed():
            header = self._header(row)
            if header is not None:
                found += [(f"{row['path']}{path.suffix}", path) for path in wfdb_companions(header)]
        return found

    def _list_path(self) -> Path:
        root = require_folder(self._config.root, key="source.root")
        return require_file(root / "record_list.csv", key="source.root")

    def _listed(self) -> Iterator[dict[str, str]]:
        return read_table(self._list_path(), key="source.root", columns=("subject_id", "study_id", "path"))

    def _header(self, row: dict[str, str]) -> Path | None:
        path = row["path"].removesuffix(".hea")
        return beside(self._config.root, f"{path}.hea") if path else None

    @cached_property
    def _diseases(self) -> dict[str, dict[str, float]]:
        if self._config.diagnoses is None:
            return {}
        columns = ("study_id", "all_diag_all")
        rows = read_table(self._config.diagnoses, key="source.diagnoses", columns=columns)
        labelled = ((row["study_id"], literal_codes(row["all_diag_all"])) for row in rows)
        return {study: diseases_of(codes) for study, codes in labelled if codes}


def literal_codes(text: str) -> list[str]:
    """Codes of a Python list as text; empty where it is ``[]`` (none recorded is not healthy) or no list."""
    if not text.startswith("[") or len(text) > _MAXIMUM_LIST_CHARACTERS:
        return []
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [code for code in found if isinstance(code, str)] if isinstance(found, list) else []
