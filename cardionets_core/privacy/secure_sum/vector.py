"""Updates and sums as one vector of whole numbers, and the sum of such vectors as both again (rows 9 and 12).

Comes in: float arrays by name. Goes out: ``uint64`` [N], which a ``SecureSite`` masks. A sum takes a whole
number of 64 bits; two values of updates share one, each shifted to be above 0 by as much as can stand below:
added over all parties neither half reaches into the other. Nothing wraps: a value that does not fit is
refused by ``FixedPoint``. Knows no site, task or wire.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cardionets_core.errors import UsageError
from cardionets_core.privacy.secure_sum.fixed_point import FixedPoint, Ring

HALF = np.uint64(32)
LOW = np.uint64(0xFFFF_FFFF)


@dataclass(frozen=True)
class VectorForm:
    """What a vector holds, the same for all who take part.

    Attributes:
        updates: name and number of values of each update.
        sums: name and shape of each sum.
        parties: the most whose vectors are added.
        largest_update: the largest magnitude of a party's value of an update.
        largest_sum: the same of a sum.
    """

    updates: tuple[tuple[str, int], ...]
    sums: tuple[tuple[str, tuple[int, ...]], ...]
    parties: int
    largest_update: float
    largest_sum: float

    @cached_property
    def halves(self) -> FixedPoint:
        """Of the updates."""
        return FixedPoint.finest(32, largest=self.largest_update, parties=self.parties)

    @cached_property
    def wholes(self) -> FixedPoint:
        """Of the sums."""
        return FixedPoint.finest(64, largest=self.largest_sum, parties=self.parties)

    @property
    def size(self) -> int:
        """N."""
        return self._pairs + sum(math.prod(shape) for _, shape in self.sums)

    @property
    def _pairs(self) -> int:
        return (sum(count for _, count in self.updates) + 1) // 2

    def pack(self, updates: Mapping[str, np.ndarray], sums: Mapping[str, np.ndarray]) -> Ring:
        """One party's vector; what it does not give is zero.

        Args:
            updates: flat float32 or float64.
            sums: float64.

        Raises:
            FixedPointRangeError: a value is not finite, or too large.
            UsageError: a name or shape is not of this form.
        """
        strangers = {*updates} - {name for name, _ in self.updates} | {*sums} - {
            name for name, _ in self.sums
        }
        if strangers:
            raise UsageError(f"the vector has no place for {min(strangers)}")
        vector = np.zeros(self.size, dtype=np.uint64)
        codes = np.zeros(2 * self._pairs, dtype=np.uint32)
        for name, place, shape in _places(self.updates):
            if name in updates:
                codes[place] = self.halves.encode(_fitting(name, updates[name], shape), name=name)
        shift = np.uint32(self.halves.largest_code)
        codes += shift
        vector[: self._pairs] = codes[1::2].astype(np.uint64) << HALF | codes[::2]
        for name, place, shape in _places(self.sums, start=self._pairs):
            if name in sums:
                vector[place] = self.wholes.encode(_fitting(name, sums[name], shape), name=name).reshape(-1)
        return vector

    def unpack(self, total: Ring, *, parties: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The added updates, float64 [n], and the added sums, float64.

        Args:
            total: the sum of vectors of this form.
            parties: how many were added.

        Raises:
            UsageError: the sum is of another form.
        """
        if total.dtype != np.uint64 or total.shape != (self.size,):
            raise UsageError(f"a sum of {total.shape} {total.dtype} is not of {self.size} numbers of 64 bits")
        pairs, shift = total[: self._pairs], np.uint64(parties * self.halves.largest_code)
        codes = np.empty(2 * self._pairs, dtype=np.uint32)
        codes[::2] = ((pairs & LOW) - shift).astype(np.uint32)
        codes[1::2] = ((pairs >> HALF) - shift).astype(np.uint32)
        updates = {name: self.halves.decode(codes[place]) for name, place, _ in _places(self.updates)}
        sums = {
            name: self.wholes.decode(total[place]).reshape(shape)
            for name, place, shape in _places(self.sums, start=self._pairs)
        }
        return updates, sums


def _places(
    named: tuple[tuple[str, int | tuple[int, ...]], ...]
    | tuple[tuple[str, int], ...]
    | tuple[tuple[str, tuple[int, ...]], ...],
    *,
    start: int = 0,
) -> Iterator[tuple[str, slice, tuple[int, ...]]]:
    for name, size in named:
        shape = (size,) if isinstance(size, int) else size
        stop = start + math.prod(shape)
        yield name, slice(start, stop), shape
        start = stop


def _fitting(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.shape != shape:
        raise UsageError(f"{name} has the shape {value.shape}, not {shape}")
    return value
