"""The folders of a hospital's own export: which files are recordings, whose, and how each is read (step 2).

Comes in: the ``ecg`` and ``cmr`` parts of ``site.yaml``. Goes out: recordings keyed by their path, or the
path that an index names. Formats are checked when the document is opened; ``auto`` goes by content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cardionets_core.config.local_site import CineFiles, EcgFiles, LocalSource
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.registry import READERS, reader_named, recognise
from cardionets_core.data.records import EcgRecord, Read, Recording
from cardionets_core.data.sources.base import beside, require_folder
from cardionets_core.data.sources.patterns import Pattern
from cardionets_core.data.sources.tables import identifier
from cardionets_core.errors import ConfigError, RecordRefused, SourceInvalidError

AUTO = "auto"
SCALED = "gain-declared"
_ONLY_VISIT = "1"
_WFDB_SIGNALS = (".dat", ".mat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One folder of recordings.

    Attributes:
        kind: what its recordings are.
        key: of the document, ``source.ecg`` or ``source.ecg.1``.
        folder: where it lies.
        pattern: reads person and visit off a path; None where the index does.
        reader: of the declared format; None for ``auto``.
        options: what the document declares of the files.
        scale: multiplies the signal of an ECG.
    """

    kind: Literal["ecg", "cine"]
    key: str
    folder: Path
    pattern: Pattern | None
    reader: Reader | None
    options: ReadOptions
    scale: float = 1.0

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files that can be recordings here."""
        if self.reader is not None:
            return self.reader.suffixes
        return tuple(s for reader in READERS.values() if reader.kind == self.kind for s in reader.suffixes)

    def recordings(self, refusals: Counter[str]) -> Iterator[Recording]:
        """Every recording of the folder, by its pattern, or each file as a person of its own.

        Args:
            refusals: counts files that no reader knows, where the format is ``auto``.

        Raises:
            FolderMissingError: names the key.
            SourceInvalidError: the folder holds no recording.
        """
        require_folder(self.folder, key=f"{self.key}.folder")
        taken: set[Path] = set()
        empty = True
        for path in sorted(self.folder.rglob("*")):
            relative = path.relative_to(self.folder)
            names = self._names(relative)
            if names is None or not taken.isdisjoint(path.parents) or not self._takes(path, refusals):
                continue
            if path.is_dir():
                taken.add(path)
            empty = False
            patient, visit = identifier(names["patient"]), identifier(names.get("visit", _ONLY_VISIT))
            yield Recording(patient=patient, visit=visit, kind=self.kind, path=path)
        if empty:
            form = self.reader.title if self.reader else "recording of a known format"
            where = "pattern" if self.pattern else "folder"
            raise SourceInvalidError(
                f"no {form} was found" + (" where the pattern says" if self.pattern else ""),
                where=f"site.yaml: {self.key}.{where}",
                remedy=f"mend folder, format or pattern; its files end in {', '.join(self.suffixes)}",
            )

    def named(self, name: str) -> Path | None:
        """The path that a cell of the index names; None where it leads out of the folder.

        An ending may be left out; a WFDB record may be named by its signal file.
        """
        lower = name.lower()
        if self.reader is not None and ".hea" in self.suffixes and lower.endswith(_WFDB_SIGNALS):
            name = name[: -len(".dat")] + ".hea"
        path = beside(self.folder, name)
        if path is None or path.name.lower().endswith(self.suffixes):
            return path
        whole = [path.with_name(path.name + suffix) for suffix in dict.fromkeys(self.suffixes)]
        return next((found for found in (path, *whole) if found.exists()), whole[0])

    def owns(self, path: Path) -> bool:
        """Whether a path is one that this part would list."""
        if self.folder not in path.parents:
            return False
        if self.pattern is not None:
            return self.pattern.match(path.relative_to(self.folder).as_posix()) is not None
        return path.name.lower().endswith(self.suffixes) or bool(self.reader and self.reader.folders)

    def read(self, path: Path) -> Read:
        """Read one recording of this part.

        Raises:
            RecordRefused: with its reason; ``unrecognised`` where it is of the other kind.
        """
        reader = self.reader
        if reader is None:
            if not path.exists():
                raise RecordRefused(f"{self.kind}-file-missing", where=str(path))
            reader = recognise(path)
            if reader.kind != self.kind:
                raise RecordRefused("unrecognised", f"the file is no {self.kind}", where=str(path))
        record = reader.read(path, self.options)
        if isinstance(record, EcgRecord) and self.scale != 1.0:
            scaled = (record.signal_mv * self.scale).astype(record.signal_mv.dtype)
            return replace(record, signal_mv=scaled, flags=record.flags | {SCALED})
        return record

    def _names(self, relative: Path) -> dict[str, str] | None:
        if self.pattern is not None:
            return self.pattern.match(relative.as_posix())
        return {"patient": relative.with_suffix("").as_posix()}

    def _takes(self, path: Path, refusals: Counter[str]) -> bool:
        """Whether a path that has the right name is a recording."""
        if path.is_dir():
            return self.pattern is not None and self._is_recording_folder(path)
        if path.suffix.lower() in _WFDB_SIGNALS and path.with_suffix(".hea").is_file():
            return False  # the signals of a WFDB record, whose header stands for it
        expected = path.name.lower().endswith(self.suffixes)
        if self.reader is not None:
            return (expected or bool(self.pattern and self.pattern.names_ending)) and path.is_file()
        try:
            return recognise(path).kind == self.kind
        except RecordRefused as refusal:
            if expected:
                refusals[refusal.reason] += 1
            return False

    def _is_recording_folder(self, path: Path) -> bool:
        if self.reader is not None:
            return self.reader.folders
        try:
            return recognise(path).kind == self.kind
        except RecordRefused:
            return False


def parts_of(config: LocalSource, *, views: tuple[str, ...] = ()) -> tuple[Part, ...]:
    """All folders of a document, ECGs first.

    Args:
        config: the part of the document.
        views: of cines, those that are wanted; all where empty.

    Raises:
        UnknownNameError: no reader has the name of a format.
        ConfigError: a format of the other kind, or one whose files need more to be declared; tells all that
            is wrong at once.
    """
    parts: list[Part] = []
    faults: list[ConfigError] = []
    named: tuple[tuple[Literal["ecg", "cine"], str, bool, Sequence[EcgFiles | CineFiles]], ...] = (
        ("ecg", "source.ecg", isinstance(config.ecg, tuple), config.ecg_parts),
        ("cine", "source.cmr", isinstance(config.cmr, tuple), config.cine_parts),
    )
    for kind, name, is_list, files in named:
        for place, declared in enumerate(files):
            try:
                key = f"{name}.{place}" if is_list else name
                parts.append(_part(declared, kind=kind, key=key, views=views))
            except ConfigError as fault:
                faults.append(fault)
    if len(faults) > 1:
        raise ConfigError(
            "\n".join(f"  - {fault.where.removeprefix('site.yaml: ')}: {fault.what}" for fault in faults),
            where="site.yaml: source", remedy="mend the keys named above",
        )  # fmt: skip
    if faults:
        raise faults[0]
    return tuple(parts)


def _part(
    files: EcgFiles | CineFiles, *, kind: Literal["ecg", "cine"], key: str, views: tuple[str, ...]
) -> Part:
    if isinstance(files, EcgFiles):
        options = ReadOptions(
            rate_hz=files.rate_hz, unit=files.unit, leads=files.leads, dataset=files.dataset
        )
    else:
        options = ReadOptions(
            view=files.view, third_axis=files.third_axis, label_map=files.label_map, views=views
        )
    reader = None if files.format == AUTO else reader_named(files.format, where=f"site.yaml: {key}.format")
    if reader is not None:
        _check_reader(reader, options, kind=kind, key=key)
    return Part(
        kind=kind,
        key=key,
        folder=files.folder,
        pattern=None if files.pattern is None else Pattern(files.pattern),
        reader=reader,
        options=options,
        scale=files.scale if isinstance(files, EcgFiles) else 1.0,
    )


def _check_reader(reader: Reader, options: ReadOptions, *, kind: str, key: str) -> None:
    if reader.kind != kind:
        fitting = sorted(other.name for other in READERS.values() if other.kind == kind)
        raise ConfigError(
            f"{reader.title} holds no {kind}", where=f"site.yaml: {key}.format",
            remedy=f"the formats are: {', '.join(fitting)}, or auto",
        )  # fmt: skip
    missing = [name for name in reader.needs if getattr(options, name) is None]
    if missing:
        raise ConfigError(
            f"{reader.title} files do not say their {', '.join(missing)}",
            where=f"site.yaml: {key}.{missing[0]}",
            remedy=f"declare {' and '.join(missing)} there",
        )
