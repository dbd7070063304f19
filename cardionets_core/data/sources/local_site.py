"""A hospital's own export: folders of ECGs and cines, an index or patterns, tables (step 2 of the walk).

Everything is where and how ``site.yaml`` says; see ``config/local_site.py`` for the document. The index has
the columns patient, visit, ecg, cine, or those that are declared; a cell of the last two names a file or
folder inside ``ecg.folder`` and ``cmr.folder``, or is empty.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cardionets_core.config.local_site import CineFiles, EcgFiles, IndexTable, LocalSource, PhenotypeTable
from cardionets_core.data.readers.wfdb_header import HeaderInvalidError, parse_header
from cardionets_core.data.records import VIEWS, Person, Read, Recording
from cardionets_core.data.sources.base import require_file, require_folder, wfdb_companions
from cardionets_core.data.sources.local_files import Part, parts_of
from cardionets_core.data.sources.local_tables import (
    LocalTables,
    check_units,
    read_local_tables,
    table_paths,
)
from cardionets_core.data.sources.tables import identifier, read_columns
from cardionets_core.data.sources.withdrawals import read_list
from cardionets_core.errors import SourceInvalidError

_ONLY_VISIT = "1"
_HEADER_BYTES = 100_000


class LocalSiteSource:
    """Recordings of any format that is read here, keyed by an index or by their paths."""

    def __init__(self, config: LocalSource, *, views: tuple[str, ...] = VIEWS) -> None:
        """Bind a document; folders whose declared view is none of ``views`` are not listed.

        Raises:
            ConfigError: a format, field or unit that does not exist, or a declaration that is missing.
        """
        self._config = config
        self._parts = parts_of(config, views=views)
        if isinstance(config.phenotypes, PhenotypeTable):
            check_units(config.phenotypes)
        self._listed = [part for part in self._parts if part.options.view in (None, *views)]
        self.refusals: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def recordings(self) -> list[Recording]:
        """See ``Source``."""
        self.refusals.clear()
        found: list[Recording] = []
        index = self._config.index_table
        if index is not None:
            found += self._indexed(index)
        for part in self._listed:
            if part.pattern is not None or index is None:
                found += part.recordings(self.refusals)
        self._check_owners(found)
        if not found:
            raise SourceInvalidError(
                "the site lists no recording", where="site.yaml: source",
                remedy="fill the index, or name the folder that holds the files",
            )  # fmt: skip
        kept = [recording for recording in found if recording.patient not in self._withdrawn]
        if len(kept) < len(found):
            self.refusals["withdrawn"] = len(found) - len(kept)
        return kept

    def read(self, recording: Recording) -> Read:
        """See ``Source``."""
        parts = [part for part in self._parts if part.kind == recording.kind]
        owner = next((part for part in parts if part.owns(recording.path)), parts[0])
        return owner.read(recording.path)

    def parts(self, recording: Recording) -> list[Path]:
        """See ``Source``."""
        path = recording.path
        if path.suffix.lower() == ".hea":
            return _wfdb_files(path)
        return [part for part in (path, *_segmentations(path)) if part.exists()]

    def person(self, patient: str, visit: str) -> Person:
        """See ``Source``; diagnoses belong to the person, phenotypes to the visit."""
        return self._tables.person(patient, visit)

    def tables(self) -> list[tuple[str, Path]]:
        """See ``Source``."""
        return [
            (key, require_file(path, key=f"source.{key}")) for key, path in table_paths(self._config).items()
        ]

    def settings(self) -> dict[str, Any]:
        """See ``Source``."""
        config = self._config
        return {
            "kind": config.kind,
            "ecg": _shaping(config.ecg_parts),
            "cmr": _shaping(config.cine_parts),
        }

    @cached_property
    def _withdrawn(self) -> frozenset[str]:
        return read_list(self._config.withdrawals, numbers=False)

    @cached_property
    def _tables(self) -> LocalTables:
        return read_local_tables(self._config, withdrawn=self._withdrawn, notes=self.notes)

    def _indexed(self, index: IndexTable) -> list[Recording]:
        key = "source.index"
        unkeyed = [part for part in self._parts if part.pattern is None]
        for part in unkeyed:
            require_folder(part.folder, key=f"{part.key}.folder")
        named: list[tuple[Literal["ecg", "cine"], str]] = [("ecg", index.ecg), ("cine", index.cine)]
        kinds = [(kind, column) for kind, column in named if any(part.kind == kind for part in unkeyed)]
        wanted = (index.patient, *([index.visit] if index.visit else []), *(column for _, column in kinds))
        listed = {
            kind: [p for p in self._listed if p.pattern is None and p.kind == kind] for kind, _ in kinds
        }
        found: list[Recording] = []
        for piece in read_columns(index.table, key=key, columns=tuple(dict.fromkeys(wanted))):
            for place, cell in enumerate(piece[index.patient]):
                patient = identifier(cell)
                if not patient:
                    raise SourceInvalidError("a row of the index names no patient", where=f"site.yaml: {key}")
                visit = identifier(piece[index.visit][place]) if index.visit else _ONLY_VISIT
                for kind, column in kinds:
                    name = piece[column][place]
                    if not name or not listed[kind]:
                        continue
                    path = _named(listed[kind], name)
                    if path is None:
                        self.refusals[f"{kind}-file-missing"] += 1
                    else:
                        found.append(Recording(patient=patient, visit=visit, kind=kind, path=path))
        return found

    def _check_owners(self, found: list[Recording]) -> None:
        owners: dict[Path, tuple[str, str]] = {}
        for recording in found:
            owner = (recording.patient, recording.visit)
            if owners.setdefault(recording.path, owner) != owner:
                raise SourceInvalidError(
                    "one file belongs to two people or visits",
                    where="site.yaml: source.index" if self._config.index else "site.yaml: source",
                    remedy="a recording belongs to one visit of one person; mend the index or the patterns",
                )


def _named(parts: list[Part], name: str) -> Path | None:
    """The path that a cell names: in the first folder that holds it, else where the first folder would."""
    name = name.replace("\\", "/")
    paths = [path for part in parts if (path := part.named(name)) is not None]
    if len(paths) > 1:
        return next((path for path in paths if path.exists()), paths[0])
    return paths[0] if paths else None


def _shaping(files: Sequence[EcgFiles | CineFiles]) -> list[dict[str, Any]]:
    """What is declared of each folder. Of several it also matters which folder and which files are meant.

    So a digest of the folder's place among them is added: two folders that change places are seen, a whole
    export that moves is not.
    """
    found = [part.model_dump(mode="json", exclude={"folder", "pattern"}) for part in files]
    if len(files) > 1:
        common = os.path.commonpath([part.folder for part in files])
        for one, part in zip(found, files, strict=True):
            place = f"{os.path.relpath(part.folder, common)}\n{part.pattern}"
            one["place"] = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return found


def _segmentations(path: Path) -> list[Path]:
    """Where the drawing that belongs to a NIfTI file may lie."""
    name = path.name.lower()
    stem = path.name[: -len(".nii.gz")] if name.endswith(".nii.gz") else path.name[: -len(".nii")]
    if not name.endswith((".nii", ".nii.gz")):
        return []
    return [path.with_name(f"{other}{suffix}") for other in (f"{stem}_gt", f"seg_{stem}") for suffix in
            (".nii.gz", ".nii")]  # fmt: skip


def _wfdb_files(header: Path) -> list[Path]:
    """The header and the signal files that it names, as far as they are there."""
    if not header.is_file():  # a pipe would be waited for
        return []
    try:
        with header.open("rb") as stream:
            signals = parse_header(stream.read(_HEADER_BYTES).decode("latin-1")).signals
    except (OSError, HeaderInvalidError):
        return wfdb_companions(header)
    names = dict.fromkeys(signal.file_name for signal in signals)
    return [header, *(path for name in names if (path := header.with_name(name)).is_file())]
