"""HDF5 files with one recording, as those of SPH (step 2 of the walk; FORMATS section 5).

Such a file names no rate, unit or lead order: the site's document does. Files in which many recordings are
stacked (CODE-15) are refused with the advice to write one file a recording. Nothing that lies outside of the
file is opened: external links, external storage and virtual arrays are refused.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cardionets_core.data.readers.bare_array import bare_record, check_shape
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.disk import check_size
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

DEFAULT_NAME = "ecg"
MAXIMUM_FILE_BYTES = 10**12
"""A file of many recordings may be huge; only its table of contents is read before it is refused."""
MAXIMUM_CHUNK_BYTES = 64_000_000
MAXIMUM_NAMES = 64
_MARK = b"\x89HDF\r\n\x1a\n"
_MARK_7_3 = b"MATLAB 7.3 MAT-file"


def read_hdf5(path: Path, options: ReadOptions) -> EcgRecord:
    """Read one file; see ``bare_record`` for what must be declared.

    Args:
        path: the file.
        options: ``dataset`` names the array, ``group/name`` inside a group; without it ``ecg``, or the only
            array of the file.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-wrong-structure``,
            ``ecg-unsupported`` or ``ecg-undeclared``.
    """
    check_size(path, kind="ecg", limit_bytes=MAXIMUM_FILE_BYTES)
    try:
        return bare_record(_array(path, options.dataset), options)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except Exception as error:  # h5py raises many kinds on torn files
        raise RecordRefused("ecg-unreadable", "not a readable HDF5 file", where=str(path)) from error


def _array(path: Path, wanted: str | None) -> np.ndarray:
    with h5py.File(path, "r", locking=False) as file:  # many network drives know no locks
        found = _declared(file, wanted) if wanted else _obvious(file)
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise RecordRefused("ecg-wrong-structure", "the declared dataset is not an array of the file")
        check_shape(found.shape, found.dtype)
        if found.is_virtual or found.external:
            raise RecordRefused("ecg-unsupported", "the array lies outside of the file")
        if math.prod(found.chunks or ()) * found.dtype.itemsize > MAXIMUM_CHUNK_BYTES:
            raise RecordRefused("ecg-too-large", "a chunk is larger than any ECG")
        return np.asarray(found[...])


def _declared(file: Any, name: str) -> Any:
    """The object of a path; None where it is not there."""
    found = file
    for part in name.strip("/").split("/"):
        found = _own(found, part) if isinstance(found, h5py.Group) else None
    return found


def _obvious(file: Any) -> Any:
    found = _own(file, DEFAULT_NAME)
    if found is not None:
        return found
    names = list(itertools.islice(file, MAXIMUM_NAMES + 1))
    own = [_own(file, name) for name in names]
    arrays = [item for item in own if isinstance(item, h5py.Dataset) and len(item.shape or ()) > 1]
    if len(arrays) != 1 or len(names) > MAXIMUM_NAMES:
        raise RecordRefused("ecg-undeclared", "no array ecg, and not just one array: declare dataset")
    return arrays[0]


def _own(group: Any, name: str) -> Any:
    """A member that lies in this file; None for a missing one, and for a link to elsewhere."""
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


READER = Reader(
    name="hdf5",
    kind="ecg",
    title="HDF5 array",
    suffixes=(".h5", ".hdf5", ".mat"),
    recognises=lambda path, head: head.startswith(_MARK) or (head[:19] == _MARK_7_3 and _MARK in head),
    read=read_hdf5,
    needs=("rate_hz", "unit"),
)
