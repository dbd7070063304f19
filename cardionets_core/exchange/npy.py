"""Arrays as the bytes of a ``.npy`` file and back, with one copy there and none back (rows 0 and 10).

``numpy.save`` into a buffer copies twice and ``numpy.load`` from one once more; at the size of a model that
is felt in time and in peak memory. Reading is strict: no pickle, no Fortran order, and the bytes must be all.
"""

from __future__ import annotations

import io
import math
import re

import numpy as np

from cardionets_core.errors import PeerError

MAGIC_BYTES = 8
"""Before the header's length: the magic word and the version."""
MAGIC = b"\x93NUMPY\x01\x00"
LONGEST_HEADER = 1000
MOST_SIDES = 32
"""A shape has fewer in every numpy."""
MOST_VALUES = 2**48
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biuf]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \((|\d{1,15},|\d{1,15}(?:, \d{1,15})+)\), \} *\n"
)
"""As numpy writes it. numpy reads a header as a program's literal, of any depth and with any remark."""


def to_npy(array: np.ndarray) -> bytes:
    """The content of a ``.npy`` file.

    Raises:
        PeerError: the array holds Python objects.
    """
    if array.dtype.hasobject:
        raise PeerError("an array of Python objects cannot travel", where="exchange")
    array = np.ascontiguousarray(array).reshape(array.shape)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape},
    )
    return b"".join((header.getvalue(), array.reshape(-1).view(np.uint8).data))


def from_npy(content: bytes | bytearray | memoryview) -> np.ndarray:
    """The array in the content of a ``.npy`` file: a read-only view of these bytes.

    Raises:
        PeerError: these are not the bytes of one array of numbers.
    """
    dtype, shape, place = npy_header(bytes(content[: MAGIC_BYTES + 2 + LONGEST_HEADER]))
    size = math.prod(shape)
    if len(content) != place + size * dtype.itemsize:
        raise PeerError("an array's bytes are not those that its header names", where="exchange")
    found = np.frombuffer(content, dtype=dtype, count=size, offset=place).reshape(shape)
    found.flags.writeable = False
    return found


def npy_header(content: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type and shape of an array, and where its values begin.

    Args:
        content: the beginning of a ``.npy`` file, at least its first ``LONGEST_HEADER`` + 10 bytes.

    Raises:
        PeerError: it is no header as ours are.
    """
    begin = MAGIC_BYTES + 2
    length = int.from_bytes(content[MAGIC_BYTES:begin], "little")
    match = _HEADER.fullmatch(content[begin : begin + length])
    if not content.startswith(MAGIC) or length > LONGEST_HEADER or match is None:
        raise PeerError("an array's header cannot be read", where="exchange")
    shape = tuple(int(side) for side in match[2].replace(b",", b" ").split())
    try:
        dtype = np.dtype(match[1].decode("ascii"))
    except TypeError as error:
        raise PeerError("an array's values are of no known type", where="exchange") from error
    # Beside a side of zero can stand others beyond all memory; no array of numpy has them.
    if len(shape) > MOST_SIDES or math.prod(side for side in shape if side) > MOST_VALUES:
        raise PeerError("an array's shape is none of ours", where="exchange")
    return dtype, shape, begin + length
