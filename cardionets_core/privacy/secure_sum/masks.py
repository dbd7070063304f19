"""Masks: long rows of numbers that look random to whoever lacks a seed of 32 bytes.

Comes in: seeds, and a vector of ``uint32`` or ``uint64``. Goes out: the same vector, with the stream of each
seed added or taken off modulo 2^32 or 2^64, in place. Also derives keys from secrets for the whole protocol,
so that one secret never gives the same key for two uses.

A seed goes through HKDF-SHA256 (RFC 5869) with the session as salt and its use and pair as info; what comes
out is the key of AES-256 in counter mode, whose stream is read in little-endian order. ChaCha20 was the other
choice: ``python -m simulation.benchmarks.secure_sum`` measures both, and AES is taken since processors have
instructions for it. A key serves one stream alone, so the counter begins at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.privacy.secure_sum.refusals import refusal

KEY_BYTES = 32
TILE_BYTES = 1 << 18
"""Of the vector and of the stream; both stay in the processor's cache while all masks pass over them."""
_BLOCK_BYTES = 16


@dataclass(frozen=True, slots=True)
class Mask:
    """A stream and its sign.

    Attributes:
        key: 32 bytes from ``derived_key``; never shown.
        adds: whether the stream is added; else it is taken off.
    """

    key: bytes = field(repr=False)
    adds: bool


def framed(*parts: str | bytes) -> bytes:
    """Parts one after the other, each behind its length: two different rows of parts never look the same."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in raw)


def derived_key(secret: bytes, *, session: bytes, use: str, names: Sequence[str]) -> bytes:
    """A key of 32 bytes for one use of a secret.

    Args:
        secret: at least 32 bytes of which nobody else knows anything.
        session: digest of the session's name.
        use: what the key is for.
        names: of the sites that it concerns, in an order that both sides know.
    """
    info = framed("cardionets secure sum 1", use, *names)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=session, info=info).derive(secret)


def apply_masks(vector: Ring, masks: Sequence[Mask]) -> None:
    """Add and take off streams in place.

    One pass over the vector, whatever the number of masks; beside it 512 KiB are needed.

    Args:
        vector: ``uint32`` or ``uint64`` [N], writable.
        masks: a stream each.

    Raises:
        SecureSumError: ``vector-differs``: the vector is of another kind.
    """
    check_vector(vector)
    width = vector.dtype.itemsize
    streams = [Cipher(algorithms.AES(mask.key), modes.CTR(bytes(_BLOCK_BYTES))).encryptor() for mask in masks]
    zeros = memoryview(bytes(TILE_BYTES))
    # The library asks for room for one block more than it writes.
    room = bytearray(TILE_BYTES + _BLOCK_BYTES)
    numbers = np.frombuffer(room, dtype=vector.dtype.newbyteorder("<"), count=TILE_BYTES // width)
    for start in range(0, vector.size, TILE_BYTES // width):
        tile = vector[start : start + TILE_BYTES // width]
        part = numbers[: tile.size]
        for mask, stream in zip(masks, streams, strict=True):
            stream.update_into(zeros[: tile.nbytes], room)
            if mask.adds:
                np.add(tile, part, out=tile)
            else:
                np.subtract(tile, part, out=tile)


def check_vector(vector: Ring) -> None:
    """Whether a vector can be masked.

    Raises:
        SecureSumError: ``vector-differs``: it is not a flat row of ``uint32`` or ``uint64``, or is empty.
    """
    if vector.ndim != 1 or vector.size == 0 or vector.dtype not in (np.uint32, np.uint64):
        raise refusal(
            "vector-differs",
            f"a vector came as {vector.dtype} of shape {vector.shape}, not flat uint32 or uint64",
        )
