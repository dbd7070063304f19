"""Which files and folders under a path are one recording each (step 2 of the walk, for ``inspect``).

Comes in: a path that a person named. Goes out: its recordings in a sorted order, each with the reader whose
marks it bears. A study of DICOM files in one folder is one recording; so is a WFDB header with its signal
files. Reads no signal and no pixel; follows no links to folders.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.registry import recognise
from cardionets_core.data.readers.wfdb_header import HeaderInvalidError, parse_header
from cardionets_core.errors import RecordRefused

_MAXIMUM_HEADER_BYTES = 1_000_000
_HEADER = ".hea"
_LOOKED_AT = 64
"""Files of a folder that are opened to tell whether it is one recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file or folder that stands for a recording, or that nobody knows.

    Attributes:
        path: stays in this process.
        position: from 1, in the sorted order of the argument's files.
        reader: of its format; None where no reader knows it.
    """

    path: Path
    position: int
    reader: Reader | None


def recordings_on_disk(path: Path) -> Iterator[Found]:
    """Everything under a path, in the order of the relative paths.

    Args:
        path: a file, or a folder that is walked unless it is itself one recording.
    """
    for position, (unit, reader) in enumerate(_units(path), start=1):
        yield Found(path=unit, position=position, reader=reader)


def _units(path: Path) -> Iterator[tuple[Path, Reader | None]]:
    if path.is_dir():
        reader = _reader_of(path)
        if reader is not None and not _holds_another_kind(path, reader):
            yield path, reader
        else:
            yield from _inside(path)
        return
    header = path.with_suffix(_HEADER)
    # Named by its signal file, a WFDB record is still known by its header.
    if path.suffix.lower() != _HEADER and header.is_file() and path.name in _signal_files(header):
        path = header
    yield path, _reader_of(path)


def _inside(folder: Path) -> Iterator[tuple[Path, Reader | None]]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError:
        yield folder, None
        return
    headers = [entry for entry in entries if entry.suffix.lower() == _HEADER and entry.is_file()]
    signals = {name for header in headers for name in _signal_files(header)}
    for entry in entries:
        if entry.is_dir():
            if not entry.is_symlink():
                yield from _units(entry)
        elif entry.name not in signals:
            yield entry, _reader_of(entry)


def _holds_another_kind(folder: Path, reader: Reader) -> bool:
    """Whether files of a folder that looks like one recording are recordings of the other kind.

    A folder of DICOM ECGs bears the marks of a DICOM study too, and so does any folder above it.
    """
    files = itertools.islice((path for path in sorted(folder.rglob("*")) if path.is_file()), _LOOKED_AT)
    found = (_reader_of(path) for path in files)
    return any(other is not None and other.kind != reader.kind for other in found)


def _reader_of(path: Path) -> Reader | None:
    try:
        return recognise(path)
    except RecordRefused:
        return None


def _signal_files(header: Path) -> set[str]:
    """Names of the files that belong to a header: those that it lists, else those of its own name."""
    try:
        with header.open("rb") as stream:
            text = stream.read(_MAXIMUM_HEADER_BYTES).decode("latin-1")
        return {signal.file_name for signal in parse_header(text).signals}
    except (OSError, HeaderInvalidError):
        return {header.with_suffix(suffix).name for suffix in (".dat", ".mat")}
