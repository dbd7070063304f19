"""Arrays on disk that grow by appending (step 4 of the walk).

A plain ``.npy`` whose header is written again at the end, so memory does not grow with the cohort. The
digest is over the data alone and is taken as they pass.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_BYTES_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """What the manifest says of one array."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


class ArrayAppender:
    """Writes items of one shape and dtype, one after another.

    Args:
        path: the file to make.
        dtype: of every item.
        item_shape: of every item; the file's first axis counts items. An item of shape () is appended as a
            flat array of any length.
    """

    def __init__(self, path: Path, dtype: str, *, item_shape: tuple[int, ...] = ()) -> None:
        self._stream = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._item_shape = item_shape
        self._items = 0
        self._digest = hashlib.sha256()
        self._header_bytes = self._write_header()

    @property
    def items(self) -> int:
        """How many have been appended."""
        return self._items

    def append(self, array: np.ndarray) -> None:
        """Add one item, or a flat run of scalars."""
        if array.dtype != self._dtype or (self._item_shape and array.shape != self._item_shape):
            raise ValueError(f"{array.dtype} {array.shape} is no {self._dtype} {self._item_shape}")
        content = np.ascontiguousarray(array).tobytes()
        self._stream.write(content)
        self._digest.update(content)
        self._items += 1 if self._item_shape else array.size

    def close(self) -> StoredArray:
        """Complete the header, flush to disk, and say what is there."""
        self._stream.seek(0)
        if self._write_header() != self._header_bytes:
            raise ValueError("the header of the array outgrew its place")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        shape = (self._items, *self._item_shape)
        return StoredArray(dtype=self._dtype.str, shape=shape, sha256=self._digest.hexdigest())

    def abandon(self) -> None:
        """Close without completing."""
        self._stream.close()

    def _write_header(self) -> int:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._items, *self._item_shape)}
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self._stream.tell()


def load_array(path: Path, stored: StoredArray, *, verify: bool) -> np.ndarray:
    """Memory map of an array, read only.

    Args:
        path: the file.
        stored: what the manifest says of it.
        verify: also compare the digest of all its data.

    Raises:
        ValueError, OSError: the file is torn, or not the one that the manifest means.
    """
    if path.stat().st_size == 0:
        raise ValueError("empty file")
    if 0 in stored.shape:
        array = np.load(path, allow_pickle=False)
    else:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.str != stored.dtype or array.shape != tuple(stored.shape):
        raise ValueError("another shape or type")
    if verify and array_digest(array) != stored.sha256:
        raise ValueError("another content")
    return array


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of the data of a contiguous array, read in pieces."""
    digest = hashlib.sha256()
    flat = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    for start in range(0, len(flat), _BYTES_AT_ONCE):
        digest.update(flat[start : start + _BYTES_AT_ONCE])
    return digest.hexdigest()
