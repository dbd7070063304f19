"""Real numbers as whole numbers modulo 2^32 or 2^64: masks can be added and taken off without a trace.

Comes in: float arrays. Goes out: ``uint32`` or ``uint64`` arrays of the same shape, whose sum over all
parties is the sum of the values to half a step a party; and float arrays again. A value that does not fit is
refused: nothing wraps and nothing is cut off in silence. It knows no site and adds no mask.

Numbers below zero are written as in two's complement. The step is a power of two, so that scaling is exact
and rounding (to the nearest step, ties to the even one) is all that is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cardionets_core.errors import FixedPointRangeError, UsageError

Ring = np.ndarray[tuple[int, ...], np.dtype[Any]]
Bits = Literal[32, 64]
TILE_VALUES = 1 << 16
"""Worked on at a time, so that the copies in double precision stay in the processor's cache."""
_FRACTION_MOST = 1000
"""Steps stay normal numbers of double precision."""


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A step and a range that some number of parties agree on.

    Attributes:
        bits: 32 (updates) or 64 (sums).
        fraction_bits: the step is 2^-fraction_bits; may be below 0.
        parties: the most whose arrays are added up; their sum cannot wrap.

    Raises:
        UsageError: there is no such fixed point.
    """

    bits: Bits
    fraction_bits: int
    parties: int

    def __post_init__(self) -> None:
        if self.bits not in (32, 64) or abs(self.fraction_bits) > _FRACTION_MOST:
            raise UsageError(f"no fixed point has {self.bits} bits and {self.fraction_bits} of a fraction")
        if not 1 <= self.parties <= 1 << 16:
            raise UsageError(f"a fixed point cannot serve {self.parties} parties")

    @classmethod
    def finest(cls, bits: Bits, *, largest: float, parties: int) -> FixedPoint:
        """The smallest step with which values up to ``largest`` in magnitude can be added.

        Args:
            bits: of the ring.
            largest: magnitude of one party's value, above 0.
            parties: the most that are added up.
        """
        if not (math.isfinite(largest) and largest > 0.0):
            raise UsageError(f"{largest} is no largest magnitude")
        coarse = cls(bits, 0, parties)
        fraction_bits = math.floor(math.log2(coarse.largest_code) - math.log2(largest))
        # The logarithms may have been rounded across a whole number.
        for candidate in (fraction_bits + 1, fraction_bits, fraction_bits - 1):
            found = cls(bits, max(-_FRACTION_MOST, min(_FRACTION_MOST, candidate)), parties)
            if found.largest >= largest:
                return found
        raise UsageError(f"no fixed point of {bits} bits adds up {parties} values of {largest}")

    @property
    def step(self) -> float:
        """Distance of neighbouring values."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def largest_code(self) -> int:
        """The largest magnitude of one party in steps; exact in double precision."""
        limit = ((1 << (self.bits - 1)) - 1) // self.parties
        # Rounded downwards: a bound that double precision rounds up would let a sum wrap.
        spare = max(0, limit.bit_length() - 53)
        return limit >> spare << spare

    @property
    def largest(self) -> float:
        """The largest magnitude of one party's value."""
        return math.ldexp(float(self.largest_code), -self.fraction_bits)

    @property
    def error(self) -> float:
        """The most that one party's rounding moves a sum: half a step."""
        return self.step / 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the ring."""
        return np.dtype(np.uint32 if self.bits == 32 else np.uint64)

    def encode(self, values: np.ndarray, *, name: str) -> Ring:
        """Values in the ring.

        Args:
            values: float32 or float64, any shape.
            name: for the error.

        Raises:
            FixedPointRangeError: a value is not finite, or beyond ``largest``; says which, not what it is.
            UsageError: the values are of another type.
        """
        if values.dtype not in (np.float32, np.float64):
            raise UsageError(f"{name} is of the type {values.dtype}, not float32 or float64")
        found = np.empty(values.shape, dtype=self.dtype)
        flat, codes = values.reshape(-1), found.reshape(-1)
        signed = np.int32 if self.bits == 32 else np.int64
        steps = math.ldexp(1.0, self.fraction_bits)
        for part in _tiles(flat.size):
            # Where a huge value overflows, it becomes infinite and is refused below.
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = np.multiply(flat[part], steps, dtype=np.float64)
            np.rint(scaled, out=scaled)
            # Written so that NaN, too, counts as outside.
            outside = ~(np.abs(scaled) <= self.largest_code)
            if outside.any():
                raise self._outside(name, part.start + int(np.argmax(outside)), values.shape)
            codes[part] = scaled.astype(signed).view(self.dtype)
        return found

    def decode(self, total: Ring, *, dtype: type[np.floating[Any]] = np.float64) -> np.ndarray:
        """The values of a sum; beside the parties' rounding, each is rounded once to ``dtype``.

        Args:
            total: in the ring, of at most ``parties`` encoded arrays.
            dtype: float32 or float64.

        Raises:
            UsageError: the sum is of another ring.
        """
        if total.dtype != self.dtype:
            raise UsageError(f"a sum of the type {total.dtype} does not come from a ring of {self.bits} bits")
        found = np.empty(total.shape, dtype=dtype)
        flat, codes = found.reshape(-1), np.ascontiguousarray(total).reshape(-1)
        signed = np.int32 if self.bits == 32 else np.int64
        for part in _tiles(codes.size):
            flat[part] = np.multiply(codes[part].view(signed), self.step, dtype=np.float64)
        return found

    def _outside(self, name: str, place: int, shape: tuple[int, ...]) -> FixedPointRangeError:
        index = tuple(int(axis) for axis in np.unravel_index(place, shape))
        return FixedPointRangeError(
            f"the value of {name} at {list(index)} is not finite or lies beyond ±{self.largest:.6g}, "
            f"the range of one of {self.parties} parties in {self.bits} bits at a step of {self.step:.3g}",
            where="secure sum",
            remedy="lower the learning rate, clip the update, or state a larger range in the study",
        )


def _tiles(size: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE_VALUES, size)) for start in range(0, size, TILE_VALUES))
