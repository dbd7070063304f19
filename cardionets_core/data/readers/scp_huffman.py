"""Huffman coding of SCP-ECG samples (step 2 of the walk; EN 1064, section 2 and annex C).

Comes in: the bytes of one lead and a code table. Goes out: its numbers. A code is a prefix that names a
value, or a prefix behind which a number in two's complement stands. Codes that switch to another table are
not read.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

DEFAULT_TABLE = 19999
MAXIMUM_PREFIX_BITS = 16
_WINDOW_BITS = 32


class HuffmanError(ValueError):
    """The table or the bits cannot be read."""


class TableUnsupportedError(HuffmanError):
    """The table is legal, but of a kind that is not read."""


class Code(NamedTuple):
    """One entry of a table.

    Attributes:
        prefix_bits: length of the prefix.
        total_bits: of prefix and number together; equal where the prefix alone names the value.
        value: that the prefix names.
        prefix: its bits, the first one highest.
    """

    prefix_bits: int
    total_bits: int
    value: int
    prefix: int


def default_codes() -> tuple[Code, ...]:
    """The table of the standard: 0, then pairs of growing length up to +-8, then 8 and 16 free bits."""
    codes = [Code(1, 1, 0, 0)]
    for size in range(1, 9):
        bits = size + 2
        ones = (1 << size) - 1
        codes += [Code(bits, bits, size, ones << 2), Code(bits, bits, -size, ones << 2 | 1)]
    return (*codes, Code(10, 18, 0, 0b1111111110), Code(10, 26, 0, 0b1111111111))


def read_codes(body: bytes) -> tuple[Code, ...]:
    """The table that section 2 names or holds; of several the first, with which every lead begins.

    Raises:
        HuffmanError: the section is cut off, or its numbers are impossible.
        TableUnsupportedError: a code switches tables or is too long.
    """
    if len(body) < 2:
        raise HuffmanError("the section of code tables is cut off")
    if struct.unpack_from("<H", body)[0] == DEFAULT_TABLE:
        return default_codes()
    if len(body) < 4:
        raise HuffmanError("the section of code tables is cut off")
    count = struct.unpack_from("<H", body, 2)[0]
    if not 1 <= count <= 1024 or len(body) < 4 + 9 * count:
        raise HuffmanError("the code table is cut off")
    codes = []
    for place in range(4, 4 + 9 * count, 9):
        prefix_bits, total_bits, stays, value, reversed_prefix = struct.unpack_from("<BBBhI", body, place)
        if stays != 1:
            raise TableUnsupportedError("a code that switches tables")
        if not 1 <= prefix_bits <= total_bits:
            raise HuffmanError("a code of impossible length")
        if prefix_bits > MAXIMUM_PREFIX_BITS or total_bits > _WINDOW_BITS:
            raise TableUnsupportedError("a code that is too long")
        # The standard stores the first bit of a prefix lowest.
        prefix = int(f"{reversed_prefix & ((1 << prefix_bits) - 1):0{prefix_bits}b}"[::-1], 2)
        codes.append(Code(prefix_bits, total_bits, value, prefix))
    return tuple(codes)


def decode(content: bytes, count: int, codes: tuple[Code, ...]) -> np.ndarray:
    """The first ``count`` numbers of a lead.

    What would begin at each bit is looked up for all bits at once; only the walk from one code to the next is
    a loop.

    Returns:
        int64 [count].

    Raises:
        HuffmanError: the bits end before, or hold a code that the table has not.
    """
    if count > 8 * len(content):  # no code is shorter than a bit
        raise HuffmanError("the bits end before the samples")
    depth = max(code.prefix_bits for code in codes)
    which = np.full(1 << depth, -1, dtype=np.int16)
    for index, code in enumerate(codes):
        first = code.prefix << (depth - code.prefix_bits)
        which[first : first + (1 << (depth - code.prefix_bits))] = index
    windows = _windows(content)
    entries = which[windows >> np.uint32(_WINDOW_BITS - depth)]
    lengths = np.array([*(code.total_bits for code in codes), 0])[entries]  # the last serves for -1
    following = (np.arange(len(windows)) + lengths).tolist()
    starts = [0] * count
    place = 0
    try:
        for index in range(count):
            starts[index] = place
            place = following[place]
    except IndexError:
        raise HuffmanError("the bits end before the samples") from None
    if place > len(windows):
        raise HuffmanError("the bits end before the samples")
    chosen = entries[starts]
    if (chosen < 0).any():
        raise HuffmanError("a code that the table does not hold")
    return _values(windows[starts], chosen, codes)


def _windows(content: bytes) -> np.ndarray:
    """uint32 [8 bytes]: the 32 bits that begin at each bit; zeros behind the end."""
    octets = np.frombuffer(content + bytes(5), dtype=np.uint8).astype(np.uint64)
    forty = np.zeros(len(content), dtype=np.uint64)
    for index in range(5):
        forty = forty << np.uint64(8) | octets[index : index + len(content)]
    shifts = np.uint64(8) - np.arange(8, dtype=np.uint64)
    return (forty[:, None] >> shifts).astype(np.uint32).reshape(-1)


def _values(windows: np.ndarray, chosen: np.ndarray, codes: tuple[Code, ...]) -> np.ndarray:
    values = np.array([code.value for code in codes], dtype=np.int64)[chosen]
    for index, code in enumerate(codes):
        free = code.total_bits - code.prefix_bits
        rows = chosen == index
        if free and rows.any():
            number = (windows[rows].astype(np.int64) >> (_WINDOW_BITS - code.total_bits)) & ((1 << free) - 1)
            values[rows] = number - ((number >> (free - 1)) << free)  # two's complement
    return values
