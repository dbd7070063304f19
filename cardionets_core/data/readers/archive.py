"""The files of a study, in a folder or a zip, bounded before any is opened (step 2 of the walk).

Comes in: a path. Goes out: its files in the order of their names, each to be read as far as the caller asks.
Nothing is unpacked to disk. Number, size, compression ratio and paths of the members of a zip are judged by
its directory; reading a member never gives more bytes than that directory says.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cardionets_core.data.readers.disk import check_size
from cardionets_core.errors import RecordRefused

MAXIMUM_ZIP_BYTES = 500_000_000
MAXIMUM_FILES = 10_000
MAXIMUM_TOTAL_BYTES = 4_000_000_000
MAXIMUM_RATIO = 200
MAXIMUM_DIRECTORY_BYTES = 512 * MAXIMUM_FILES
MAXIMUM_DEPTH = 8
_END_BYTES = 65_557
"""Most that a zip's end record and comment take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFile:
    """One file of a study.

    Attributes:
        name: inside the study; for the order only, it may hold identifiers.
        size: bytes.
        opened: gives a binary stream.
    """

    name: str
    size: int
    opened: Callable[[], IO[bytes]]

    def read(self, limit_bytes: int) -> bytes:
        """The first bytes, at most ``limit_bytes``; OSError and zipfile's errors where it is torn."""
        with self.opened() as stream:
            return stream.read(limit_bytes)


@contextmanager
def study_files(path: Path) -> Iterator[list[StudyFile]]:
    """The files of a folder, a zip, or the one file itself; open as long as the context is.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-too-large``, ``cine-unreadable`` or ``cine-unsupported``.
    """
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise RecordRefused("cine-file-missing", where=str(path)) from error
    if is_folder:
        yield _in_folder(path)
        return
    size = check_size(path, kind="cine", limit_bytes=MAXIMUM_ZIP_BYTES)
    with path.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
        if is_zip:
            _check_directory(stream, size=size)
    if not is_zip:
        yield [StudyFile(name=path.name, size=size, opened=lambda: path.open("rb"))]
        return
    with zipfile.ZipFile(path) as archive:
        yield _in_zip(archive)


def _in_folder(folder: Path) -> list[StudyFile]:
    found: list[StudyFile] = []
    depth = len(folder.parts)
    for base, folders, names in os.walk(folder):
        inside = Path(base)
        if len(inside.parts) - depth >= MAXIMUM_DEPTH:
            folders.clear()
        if len(found) + len(names) + len(folders) > MAXIMUM_FILES:
            raise RecordRefused("cine-too-large", "the folder holds too many files for one study")
        for name in names:
            path = inside / name
            if path.is_file():
                found.append(StudyFile(name=str(path), size=path.stat().st_size, opened=_opener(path)))
    return sorted(found, key=lambda file: file.name)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _in_zip(archive: zipfile.ZipFile) -> list[StudyFile]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAXIMUM_FILES or sum(entry.file_size for entry in entries) > MAXIMUM_TOTAL_BYTES:
        raise RecordRefused("cine-too-large", "the zip holds too many or too large files")
    for entry in entries:
        if entry.file_size > MAXIMUM_RATIO * max(entry.compress_size, 1) + 100_000:
            raise RecordRefused("cine-too-large", "a file of the zip unpacks to far more than it should")
        name = entry.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or entry.flag_bits & 1:
            raise RecordRefused("cine-unreadable", "the zip holds a path that leaves it, or is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The others may ask for gigabytes of working memory.
            raise RecordRefused("cine-unsupported", "the zip is packed by a method other than deflate")
    return sorted(
        (
            StudyFile(name=entry.filename, size=entry.file_size, opened=_member(archive, entry))
            for entry in entries
        ),
        key=lambda file: file.name,
    )


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(entry)


def _check_directory(stream: IO[bytes], *, size: int) -> None:
    """Refuse a zip whose directory alone would fill the memory: zipfile reads it as a whole."""
    stream.seek(max(0, size - _END_BYTES))
    tail = stream.read(_END_BYTES)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise RecordRefused("cine-unreadable", "the zip is torn or not a zip")
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        raise RecordRefused("cine-unsupported", "the zip has a directory of the 64-bit kind")
    if int.from_bytes(tail[end + 12 : end + 16], "little") > MAXIMUM_DIRECTORY_BYTES:
        raise RecordRefused("cine-too-large", "the zip holds too many files")
