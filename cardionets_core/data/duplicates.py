"""Near-duplicate recordings under different people (FORMATS section 7, check 8).

The same recording may come in two formats, at two rates, or under two identifiers; standing in two splits it
leaks. Comes in: packed recordings. Goes out: a short signature of each, and the pairs that are alike.
"""

from __future__ import annotations

import numpy as np

SIGNATURE_LENGTH = 32


def ecg_signature(counts_LT: np.ndarray) -> np.ndarray:
    """Float32 [SIGNATURE_LENGTH] of int16 [12, T] at 250 Hz: alike for recordings that are alike."""
    deviation = counts_LT.std(axis=1)
    signature = np.zeros(SIGNATURE_LENGTH, dtype=np.float32)
    signature[: len(deviation)] = deviation / max(float(np.linalg.norm(deviation)), 1e-9)
    return signature
