"""UK Biobank downloads as they lie on disk (step 2 of the walk; FORMATS sections 1 to 3).

The file names carry person and visit; the newest withdrawal list is applied before anything is read. A zip is
the original: where one stands for a visit's long or short axis, converted files of that axis are passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cardionets_core.config.site import ConvertedCines, UkBiobankSource
from cardionets_core.data.readers.cardiosoft_xml import read_cardiosoft_xml
from cardionets_core.data.readers.converted_folder import read_converted_view
from cardionets_core.data.readers.dicom_cine import read_dicom_study
from cardionets_core.data.records import VIEWS, Person, Read, Recording
from cardionets_core.data.sources.base import require_file, require_folder
from cardionets_core.data.sources.diseases import CodeBook
from cardionets_core.data.sources.patterns import Pattern
from cardionets_core.data.sources.phenotype_cells import phenotype_values
from cardionets_core.data.sources.tables import identifier
from cardionets_core.data.sources.ukb_tables import UkbTables, read_eid_codes, read_ukb_tables
from cardionets_core.data.sources.withdrawals import read_ukb_lists, ukb_lists
from cardionets_core.errors import SourceInvalidError

_BULK = re.compile(r"(?P<eid>\d+)_(?P<field>\d+)_(?P<instance>\d+)_(?P<array>\d+)\.(?P<suffix>xml|zip)", re.I)
_ECG_FIELDS = {"20205": frozenset({"ecg"})}
_CINE_FIELDS = {"20208": frozenset({"4ch", "2ch", "3ch"}), "20209": frozenset({"sax"})}
_CONVERTED: dict[str, Literal["4ch", "2ch", "3ch", "sax"]] = {
    "la_4ch": "4ch", "la_2ch": "2ch", "la_3ch": "3ch", "sa": "sax",
}  # fmt: skip
_SEGMENTATIONS = ("seg_", "seg4_")


class UkBiobankFolders:
    """Fields 20205, 20208 and 20209, converted cines, the tables, diagnoses and withdrawals."""

    def __init__(self, config: UkBiobankSource, *, views: tuple[str, ...] = VIEWS) -> None:
        """Bind a document; files that can hold none of ``views`` are not listed."""
        self._config = config
        self._views = frozenset(views)
        self.refusals: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def recordings(self) -> list[Recording]:
        """See ``Source``. Of two zips of one field and visit the later array is taken."""
        self.refusals.clear()
        config = self._config
        listed: list[Recording] = []
        if config.ecg is not None:
            named = self._bulk((config.ecg,), _ECG_FIELDS, key="source.ecg")
            # A person may have been recorded twice at one visit: each file is a recording.
            listed += [_recording("ecg", name, path) for name, path in named.items()]
        zips: dict[tuple[str, str, str], Path] = {}
        if config.cmr_folders:
            named = self._bulk(config.cmr_folders, _CINE_FIELDS, key="source.cmr")
            for eid, field, instance, _ in sorted(named, key=lambda name: int(name[3])):
                zips[eid, instance, field] = named[eid, field, instance, _]
            wanted = {field for field, views in _CINE_FIELDS.items() if views & self._views}
            listed += [
                Recording(patient=eid, visit=instance, kind="cine", path=path)
                for (eid, instance, field), path in sorted(zips.items())
                if field in wanted
            ]
        if config.converted is not None:
            listed += [
                Recording(patient=eid, visit=instance, kind="cine", path=path)
                for eid, instance, view, path in _converted(config.converted)
                if view in self._views
                and not any(view in _CINE_FIELDS[f] for f in _CINE_FIELDS if (eid, instance, f) in zips)
            ]
        kept = [recording for recording in listed if recording.patient not in self._withdrawn]
        if len(kept) < len(listed):
            self.refusals["withdrawn"] = len(listed) - len(kept)
        return kept

    def read(self, recording: Recording) -> Read:
        """See ``Source``."""
        if recording.kind == "ecg":
            return read_cardiosoft_xml(recording.path)
        if recording.path.suffix.lower() == ".zip":
            return read_dicom_study(recording.path, views=self._views)
        return (read_converted_view(recording.path.parent, _CONVERTED[_stem(recording.path)]),)

    def parts(self, recording: Recording) -> list[Path]:
        """See ``Source``."""
        path = recording.path
        segmentations = () if recording.kind == "ecg" or path.suffix.lower() == ".zip" else _SEGMENTATIONS
        beside = [path.with_name(prefix + path.name) for prefix in segmentations]
        return [part for part in (path, *beside) if part.exists()]

    def person(self, patient: str, visit: str) -> Person:
        """See ``Source``; diagnoses and sex belong to the person, phenotypes and age to the visit."""
        tables = self._tables
        marks = tables.marks.get(patient)
        return Person(
            phenotypes=phenotype_values(tables.phenotypes.get((patient, visit))),
            diseases={} if marks is None else dict(self._book.labels(marks)),
            age_years=tables.ages.get((patient, visit)),
            sex=tables.sexes.get(patient),
        )

    def tables(self) -> list[tuple[str, Path]]:
        """See ``Source``."""
        config = self._config
        found = [("table", require_file(path, key="source.table")) for path in config.tables]
        if config.diagnoses is not None:
            found.append(("diagnoses", require_file(config.diagnoses, key="source.diagnoses")))
        return found + [("withdrawals", path) for path in ukb_lists(config.withdrawals)]

    def settings(self) -> dict[str, Any]:
        """See ``Source``."""
        return {"kind": self._config.kind}

    @cached_property
    def _withdrawn(self) -> frozenset[str]:
        return read_ukb_lists(self._config.withdrawals)

    @cached_property
    def _book(self) -> CodeBook:
        return CodeBook()

    @cached_property
    def _tables(self) -> UkbTables:
        tables = read_ukb_tables(
            self._config.tables,
            key="source.table",
            book=self._book,
            withdrawn=self._withdrawn,
            notes=self.notes,
        )
        if self._config.diagnoses is not None:
            for eid, marks in read_eid_codes(self._config.diagnoses, book=self._book).items():
                if eid not in self._withdrawn:
                    tables.marks[eid] = tables.marks.get(eid, 0) | marks
        return tables

    def _bulk(
        self, folders: Iterable[Path], fields: dict[str, frozenset[str]], *, key: str
    ) -> dict[tuple[str, str, str, str], Path]:
        """(eid, field, instance, array) to file; a file that lies there twice counts once."""
        found: dict[tuple[str, str, str, str], Path] = {}
        for folder in folders:
            require_folder(folder, key=key)
            for path in sorted(folder.rglob("*")):
                match = _BULK.fullmatch(path.name)
                if match and match["field"] in fields:
                    name = match["eid"], match["field"], match["instance"], match["array"]
                    found.setdefault(name, path)
        if not found:
            suffix = "xml" if fields is _ECG_FIELDS else "zip"
            raise SourceInvalidError(
                f"no file is named <eid>_{' or '.join(fields)}_<instance>_<array>.{suffix}",
                where=f"site.yaml: {key}",
                remedy="name the folder of the bulk download; do not rename its files",
            )
        return found


def _recording(kind: Literal["ecg", "cine"], name: tuple[str, str, str, str], path: Path) -> Recording:
    eid, _, instance, _ = name
    return Recording(patient=eid, visit=instance, kind=kind, path=path)


def _stem(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".nii")


def _converted(config: ConvertedCines) -> list[tuple[str, str, str, Path]]:
    """(eid, instance, view, file) of every converted cine; of two of one view the first by path."""
    folder = require_folder(config.folder, key="source.converted.folder")
    pattern = Pattern(config.pattern)
    found: dict[tuple[str, str, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        view = _CONVERTED.get(_stem(path)) if path.name.lower().endswith((".nii", ".nii.gz")) else None
        names = pattern.match(path.relative_to(folder).as_posix()) if view else None
        if view and names:
            eid, instance = identifier(names["eid"]), names.get("instance") or str(config.instance)
            found.setdefault((eid, instance, view), path)
    if not found:
        raise SourceInvalidError(
            "no la_4ch, la_2ch, la_3ch or sa as .nii or .nii.gz lies where the pattern says",
            where="site.yaml: source.converted.pattern",
            remedy="write where the folders of the visits lie, {eid}_{instance}/*.nii.gz for one",
        )
    return [(*name, path) for name, path in found.items()]
