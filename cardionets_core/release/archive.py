"""A release as one zip, and back into a folder, within bounds.

Comes in: a folder of ours, or a stranger's zip. Goes out: the same bytes for the same files, or files in an
empty folder. What a zip says of its sizes is not believed, and no name leads out of the folder.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

from cardionets_core.durable import on_disk
from cardionets_core.errors import CardioNetsError, StorageFailedError
from cardionets_core.release.layout import MOST_FILES, is_plain, sizes_of, torn

LARGEST_BYTES = 16_000_000_000
"""Of all files together, unpacked; the largest preset has some four gigabytes."""
_PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others may ask for gigabytes before they give a byte."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644
_PIECE = 1 << 20
_ENCRYPTED = 0x1


def pack_release(folder: Path, target: Path) -> None:
    """Write the zip; equal folders give equal bytes. Weights do not compress, so nothing is.

    Args:
        folder: of a whole release.
        target: the file; its folder is there.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sizes_of(folder):
            entry = zipfile.ZipInfo(name, date_time=_EARLIEST)
            entry.create_system = _UNIX
            entry.external_attr = _MODE << 16
            with (folder / name).open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink, _PIECE)


def unpack_release(path: Path, folder: Path) -> None:
    """Unpack a zip into an empty folder.

    Raises:
        ReleaseTornError: it is no zip, names a file twice or outside of itself, or passes a bound.
        StorageFailedError: the disk has no room for it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check(entries, path)
            total = sum(entry.file_size for entry in entries)
            if shutil.disk_usage(folder).free < total:
                raise StorageFailedError(
                    f"the release has {total:,} bytes, and the disk has less room",
                    where=str(folder),
                    remedy="free space, or set TMPDIR to a folder on a larger disk",
                )
            with on_disk(folder, keeps="nothing was used"):
                for entry in entries:
                    _unpack(archive, entry, folder / entry.filename, path)
    except CardioNetsError:
        raise
    except Exception as error:  # over a stranger's bytes zipfile fails in every way that it can
        raise torn("the file is no zip that can be read", str(path)) from error


def _check(entries: list[zipfile.ZipInfo], path: Path) -> None:
    if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > LARGEST_BYTES:
        raise torn("the zip holds more than a release does", str(path))
    if len({entry.filename.casefold() for entry in entries}) != len(entries):
        raise torn("the zip names a file twice", str(path))
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not is_plain(entry.filename) or kind not in (0, stat.S_IFREG):
            raise torn(f"the zip holds a name that no release has: {entry.filename[:200]!r}", str(path))
        if entry.compress_type not in _PACKINGS or entry.flag_bits & _ENCRYPTED:
            raise torn("the zip is packed as no release is", str(path))


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, target.open("xb") as sink:
        while piece := source.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise torn(f"{entry.filename} is larger than the zip says", str(path))
            sink.write(piece)
