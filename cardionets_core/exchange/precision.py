"""An update in fewer bits: bfloat16, or int8 in blocks with a scale each (rows 8 and 11 of the walk).

Comes in: flat float32 values. Goes out: the array or arrays that travel, and float32 values again. Knows no
module and no round; what is lost is for the caller to carry on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cardionets_core.errors import PeerError

Form = Literal["fp32", "bf16", "int8"]
FORMS: tuple[Form, ...] = get_args(Form)
BLOCK_VALUES = 1024
"""Values that share one scale."""
TOP = 127
"""The largest code of int8; -128 is never used, so that a value and its opposite cost the same."""
CHUNK_VALUES = BLOCK_VALUES << 10
"""Worked on at a time, so that no second copy of a module is made in double precision."""
NO_SCALES = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Coded:
    """Values as they travel.

    Attributes:
        form: how ``codes`` are to be read.
        codes: flat: float32, the upper halves of float32 as uint16, or int8.
        scales: of int8, a float32 a block; else empty.
    """

    form: Form
    codes: np.ndarray
    scales: np.ndarray


def encode(values: np.ndarray, form: Form) -> Coded:
    """Values in a form; the nearest that it has.

    The error of bf16 is at most 2^-8 of a value, below the normal range half of the least step; that of int8
    is at most half a scale, which is the block's largest magnitude / 127.

    Args:
        values: flat float32 [N].
        form: ``fp32`` (nothing is lost), ``bf16`` (round to nearest, ties to even) or ``int8``.

    Raises:
        PeerError: a value is not finite, or too large for the form.
    """
    if not np.isfinite(values).all():
        raise PeerError("values that are not finite have no coded form", where="exchange")
    if form == "fp32":
        return Coded(form, values, NO_SCALES)
    if form == "bf16":
        return Coded(form, _to_bf16(values), NO_SCALES)
    codes = np.empty(values.size, dtype=np.int8)
    scales = np.empty(_blocks(values.size), dtype=np.float32)
    for start in range(0, values.size, CHUNK_VALUES):
        part = values[start : start + CHUNK_VALUES]
        found = _scales_of(part)
        scales[start // BLOCK_VALUES :][: found.size] = found
        # A block of zeros has no step; in double precision, for a scale may be subnormal.
        step = np.where(found > 0, found, 1).astype(np.float64).repeat(BLOCK_VALUES)[: part.size]
        codes[start : start + part.size] = np.rint(part / step)
    return Coded(form, codes, scales)


def decode(coded: Coded, *, size: int) -> np.ndarray:
    """The float32 values [size] that some codes stand for.

    Raises:
        PeerError: the arrays are not those of the form and size, or stand for values that are not finite.
    """
    codes, scales = coded.codes, coded.scales
    wanted = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}[coded.form]
    blocks = _blocks(size) if coded.form == "int8" else 0
    if codes.dtype != wanted or codes.shape != (size,):
        raise PeerError(
            f"{size} values in {coded.form} came as {codes.dtype} of shape {codes.shape}", where="exchange"
        )
    if scales.dtype != np.float32 or scales.shape != (blocks,):
        raise PeerError(f"{size} values in {coded.form} came with {scales.size} scales", where="exchange")
    if coded.form == "fp32":
        values = codes
    elif coded.form == "bf16":
        values = (codes.astype(np.uint32) << 16).view(np.float32)
    else:
        if not np.isfinite(scales).all() or np.signbit(scales).any() or (codes < -TOP).any():
            raise PeerError("a scale or a code of int8 is out of its range", where="exchange")
        values = np.empty(size, dtype=np.float32)
        with np.errstate(over="ignore"):
            for start in range(0, size, CHUNK_VALUES):
                part = codes[start : start + CHUNK_VALUES]
                each = scales[start // BLOCK_VALUES :][: _blocks(part.size)].repeat(BLOCK_VALUES)
                values[start : start + part.size] = part * each[: part.size]
    if not np.isfinite(values).all():
        raise PeerError("codes came that stand for values that are not finite", where="exchange")
    return values


def wire_bytes(form: Form, size: int) -> int:
    """Bytes of so many values in a form, with their scales."""
    return {"fp32": 4 * size, "bf16": 2 * size, "int8": size + 4 * _blocks(size)}[form]


def _blocks(size: int) -> int:
    return -(-size // BLOCK_VALUES)


def _to_bf16(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Adding just below half of the last kept bit, and one more where that bit is odd: ties go to even.
    halves = ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    if ((halves & 0x7F80) == 0x7F80).any():
        raise PeerError("a value is too large for bf16", where="exchange")
    return halves


def _scales_of(values: np.ndarray) -> np.ndarray:
    """Each block's largest magnitude / 127 in float32, rounded up: no code passes 127."""
    largest = np.maximum.reduceat(np.abs(values), np.arange(0, values.size, BLOCK_VALUES)).astype(np.float64)
    scales = (largest / TOP).astype(np.float32)
    short = scales.astype(np.float64) * TOP < largest
    return np.where(short, np.nextafter(scales, np.float32(np.inf)), scales)
