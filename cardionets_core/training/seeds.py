"""Seeds from names: every random stream of a run follows from the run's seed and what it is for."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from SHA-256 of the parts; text and number of the same spelling differ.

    Args:
        parts: for example (run seed, "align", round, site).
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
