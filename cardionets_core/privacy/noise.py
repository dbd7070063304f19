"""Secret randomness: noise and sampling that nobody can predict (step 7 of the walk).

The guarantee of a private step rests on two things that an adversary must not know: who was sampled, and the
noise. So neither follows from the study's public seed: both are read from an AES-256 key stream in counter
mode, under a key of the operating system. A key that is given serves tests alone.

Normal numbers are made in float64 by the method of Box and Muller (1958), and are rounded to float32 only
together with the sum that they hide, so that the gaps between the doubles near a noise (Mironov 2012, CCS)
lie far below what is left. Their tail ends at 8.5 deviations, beyond which lies a chance of 2e-17 a number.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterable

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
PIECE = 1 << 18
"""Pairs that are made at once: what lies between stays in the caches."""
_BITS = 53


class SecretRandomness:
    """One key stream.

    Args:
        key: 32 bytes; of the operating system by default. A given one makes the draws repeat, and no
            longer secret.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self.is_secret = key is None
        key = secrets.token_bytes(KEY_BYTES) if key is None else key
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes, not {KEY_BYTES}")
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __repr__(self) -> str:
        return f"SecretRandomness(is_secret={self.is_secret})"

    def uniform(self, count: int) -> np.ndarray:
        """Float64 in [0, 1), multiples of 2^-53."""
        return (self._words(count) >> np.uint64(64 - _BITS)) * 2.0**-_BITS

    def normal(self, count: int) -> torch.Tensor:
        """Standard normal, float64 ``[count]`` on the CPU."""
        found = torch.empty(count, dtype=torch.float64)
        for begin in range(0, count, 2 * PIECE):
            piece = found[begin : begin + 2 * PIECE]
            pairs = (len(piece) + 1) // 2
            # In (0, 1], so that the logarithm is finite.
            radius = torch.from_numpy(self.uniform(pairs)).add_(2.0**-_BITS).log_().mul_(-2.0).sqrt_()
            angle = torch.from_numpy(self.uniform(pairs)).mul_(2.0 * math.pi)
            piece[:pairs] = angle.cos().mul_(radius)
            piece[pairs:] = angle.sin_().mul_(radius)[: len(piece) - pairs]
        return found

    def add_normal(self, sums: Iterable[torch.Tensor], *, deviation: float) -> None:
        """Add independent noise to each value, in place; with a deviation of 0 nothing changes."""
        if deviation == 0.0:
            return
        for value in sums:
            noise = self.normal(value.numel()).mul_(deviation).view(value.shape)
            # On the value's device, in float64: what is rounded is the sum.
            value.copy_(value.double().add_(noise.to(value.device)))

    def generator(self) -> np.random.Generator:
        """A generator for what need not be secret for ever, such as windows, seeded from the stream."""
        return np.random.default_rng([int(word) for word in self._words(4)])

    def _words(self, count: int) -> np.ndarray:
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")


def public_key_of(*parts: int | str) -> bytes:
    """A key that follows from public parts: for tests and rehearsals, which hide nothing."""
    return hashlib.sha256(repr(parts).encode()).digest()
