"""MATLAB 5 ``.mat`` files with one recording, ``feats`` for one (step 2 of the walk; FORMATS section 5).

Such a file names no rate, unit or lead order: the site's document does. The version 4 ``.mat`` beside a
``.hea`` belongs to WFDB, a version 7.3 one is HDF5.

Read by hand, after MathWorks' "MAT-File Format": scipy's ``loadmat`` ends the whole program on some torn
files (3 of 4,000 that were mutated), and inflates without a bound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.bare_array import MAXIMUM_BYTES, bare_record, stored_array
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

DEFAULT_NAME = "feats"
MAXIMUM_INFLATED_BYTES = 64_000_000
"""Of all variables of a file together."""
MAXIMUM_VARIABLES = 1000
_MARK = b"MATLAB 5.0 MAT-file"
_HEAD_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800


def read_matlab(path: Path, options: ReadOptions) -> EcgRecord:
    """Read one file; see ``bare_record`` for what must be declared.

    Args:
        path: a version 5 file.
        options: ``dataset`` names the variable; without it ``feats``, or the only array of numbers.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure`` or ``ecg-undeclared``.
    """
    content = read_bytes(path, kind="ecg", limit_bytes=2 * MAXIMUM_BYTES)
    try:
        return bare_record(_array(content, options.dataset), options)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except struct.error as error:
        raise RecordRefused("ecg-truncated", where=str(path)) from error


def _array(content: bytes, wanted: str | None) -> np.ndarray:
    if len(content) < _HEAD_BYTES or content[126:128] not in (b"IM", b"MI"):
        raise RecordRefused("ecg-unreadable", "not a MATLAB 5 file")
    order = "<" if content[126:128] == b"IM" else ">"
    found: dict[str, np.ndarray] = {}
    for matrix in _matrices(content, order):
        variable = _variable(matrix, order, wanted=wanted or DEFAULT_NAME, declared=wanted is not None)
        if variable is not None:
            found[variable[0]] = variable[1]
        if (wanted or DEFAULT_NAME) in found:
            return found[wanted or DEFAULT_NAME]
    if wanted is not None:
        raise RecordRefused("ecg-wrong-structure", "the declared dataset is not an array of the file")
    if len(found) != 1:
        raise RecordRefused(
            "ecg-undeclared", "the file holds no feats, and not just one array: declare dataset"
        )
    return next(iter(found.values()))


def _matrices(content: bytes, order: str) -> Iterator[bytes]:
    """The bytes of every matrix element, inflated within bounds."""
    place, left = _HEAD_BYTES, MAXIMUM_INFLATED_BYTES
    for _ in range(MAXIMUM_VARIABLES):
        if place + 8 > len(content):
            return
        kind, size = struct.unpack_from(f"{order}II", content, place)
        body = content[place + 8 : place + 8 + size]
        if len(body) < size:
            raise RecordRefused("ecg-truncated")
        place += 8 + size
        if kind == _COMPRESSED:
            try:
                inflated = zlib.decompressobj().decompress(body, left + 1)
            except zlib.error as error:
                raise RecordRefused("ecg-unreadable", "a compressed variable is torn") from error
            left -= len(inflated)
            if left < 0:
                raise RecordRefused("ecg-too-large", "the variables inflate beyond any ECG")
            kind, size = struct.unpack_from(f"{order}II", inflated)
            body = inflated[8 : 8 + size]
        if kind == _MATRIX:
            yield body


def _element(matrix: bytes, place: int, order: str) -> tuple[int, bytes, int]:
    """Type and bytes of a sub-element, and the place of the next."""
    word = struct.unpack_from(f"{order}I", matrix, place)[0]
    if word >> 16:  # up to four bytes are packed beside their type
        kind, size, start = word & 0xFFFF, word >> 16, place + 4
        following = place + 8
    else:
        kind, size = struct.unpack_from(f"{order}II", matrix, place)
        start = place + 8
        following = start + size + -size % 8
    data = matrix[start : start + size]
    if len(data) < size:
        raise RecordRefused("ecg-truncated")
    return kind, data, following


def _variable(matrix: bytes, order: str, *, wanted: str, declared: bool) -> tuple[str, np.ndarray] | None:
    """Name and array; None for what is no array of real numbers, or not the declared one."""
    _, flags, place = _element(matrix, 0, order)
    _, sizes, place = _element(matrix, place, order)
    _, name_bytes, place = _element(matrix, place, order)
    flag = struct.unpack_from(f"{order}I", flags)[0]
    name = name_bytes.decode("latin-1")
    if name != wanted and (declared or flag & 0xFF not in _NUMERIC_CLASSES):
        return None
    if flag & 0xFF not in _NUMERIC_CLASSES or flag & _COMPLEX:
        raise RecordRefused("ecg-wrong-structure", "the array does not hold real numbers")
    shape = struct.unpack_from(f"{order}{len(sizes) // 4}i", sizes)
    if name != wanted and min(shape, default=0) <= 1:
        return None  # a lone number or list beside the recording
    kind, data, _ = _element(matrix, place, order)
    if kind not in _STORED:
        raise RecordRefused("ecg-unreadable", "the numbers are stored in an unknown way")
    dtype = np.dtype(order + _STORED[kind])
    return name, stored_array(data, shape, dtype, order="F")


READER = Reader(
    name="matlab",
    kind="ecg",
    title="MATLAB 5 array",
    suffixes=(".mat",),
    recognises=lambda path, head: head.startswith(_MARK),
    read=read_matlab,
    needs=("rate_hz", "unit"),
)
