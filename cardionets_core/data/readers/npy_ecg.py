"""NumPy ``.npy`` files with one recording (step 2 of the walk; FORMATS section 5).

Such a file names no rate, unit or lead order: the site's document does. Object arrays, which would be
unpickled, are refused by their header.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.bare_array import MAXIMUM_BYTES, bare_record, stored_array
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

_MARK = b"\x93NUMPY"
_MAXIMUM_HEADER_BYTES = 10_000


def read_npy(path: Path, options: ReadOptions) -> EcgRecord:
    """Read one file; see ``bare_record`` for what must be declared.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure`` or ``ecg-undeclared``.
    """
    content = read_bytes(path, kind="ecg", limit_bytes=2 * MAXIMUM_BYTES + _MAXIMUM_HEADER_BYTES)
    try:
        return bare_record(_array(content), options)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal


def _array(content: bytes) -> np.ndarray:
    """The array as a view of the content: ``numpy.load`` sets memory aside before it looks at the size."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, dtype = read_header(stream, max_header_size=_MAXIMUM_HEADER_BYTES)
    except Exception as error:  # the header is Python text: its parser raises many kinds
        raise RecordRefused("ecg-unreadable", "not a NumPy file") from error
    return stored_array(content, shape, dtype, order="F" if by_columns else "C", start=stream.tell())


READER = Reader(
    name="npy",
    kind="ecg",
    title="NumPy array",
    suffixes=(".npy",),
    recognises=lambda path, head: head.startswith(_MARK),
    read=read_npy,
    needs=("rate_hz", "unit"),
)
