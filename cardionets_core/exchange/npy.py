"""Arrays as the bytes of a ``.npy`` file and back, with one copy there and none back (rows 0 and 10).

``numpy.save`` into a buffer copies twice and ``numpy.load`` from one once more; at the size of a model that
is felt in time and in peak memory. Reading is strict: no pickle, no Fortran order, and the bytes must be all.
"""

from __future__ import annotations

import io
import math

import numpy as np

from cardionets_core.errors import PeerError

MAGIC_BYTES = 8
"""Before the header's length: the magic word and the version."""
LONGEST_HEADER = 10_000


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
    handle = io.BytesIO(bytes(content[: MAGIC_BYTES + 2 + LONGEST_HEADER]))
    try:
        version = np.lib.format.read_magic(handle)
        if version != (1, 0):
            raise ValueError("version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle, max_header_size=LONGEST_HEADER)
    except (ValueError, SyntaxError, TypeError) as error:
        raise PeerError("an array's header cannot be read", where="exchange") from error
    size, place = math.prod(shape), handle.tell()
    fits = not fortran and not dtype.hasobject and dtype.itemsize > 0
    if not fits or any(side < 0 for side in shape) or len(content) != place + size * dtype.itemsize:
        raise PeerError("an array's bytes are not those that its header names", where="exchange")
    found = np.frombuffer(content, dtype=dtype, count=size, offset=place).reshape(shape)
    found.flags.writeable = False
    return found
