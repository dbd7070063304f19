"""Sums of replies with one number a site, which most strategies end in, and the sizes of the sites' changes.

Comes in: stored replies and numbers. Goes out: one file, or numbers. All sums are in float64, in the order of
the sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from strategies.strategy import StoredModule, fsynced, stretch, tiles

WEIGHTS = ("equal", "samples")


def counts(replies: Sequence[StoredModule], weights: str) -> list[float]:
    """How much each reply counts: its ``samples``, or all alike (``equal``)."""
    return [float(reply.samples) if weights == "samples" else 1.0 for reply in replies]


def write_sum(
    replies: Sequence[StoredModule],
    factors: Sequence[float],
    *,
    total: float,
    target: Path,
    current: Path | None = None,
    rest: float = 0.0,
) -> None:
    """target <- (rest * current + sum_k factors_k * reply_k) / total.

    With whole factors and products that are exact in float64, one reply, or equal replies, come back with
    their very bytes.
    """
    start = 0
    with fsynced(target) as handle:
        for arrays in tiles(replies):
            count = arrays[0].size
            mean = np.zeros(count, dtype=np.float64)
            if current is not None and rest != 0.0:
                mean += rest * stretch(current, start, count)
            product = np.empty(count, dtype=np.float64)
            for factor, values in zip(factors, arrays, strict=True):
                mean += np.multiply(values, factor, out=product, dtype=np.float64)
            mean /= total
            handle.write(mean.astype("<f4").tobytes())
            start += count


def squared_changes(replies: Sequence[StoredModule], *, current: Path) -> list[float]:
    """Squared L2 norm of each reply's difference from the module that was sent out."""
    found = np.zeros(len(replies))
    start = 0
    for arrays in tiles(replies):
        sent = stretch(current, start, arrays[0].size)
        change = np.empty(sent.size)
        for place, values in enumerate(arrays):
            np.subtract(values, sent, out=change)
            # Squared in place and summed: a tile stays in the cache, where a threaded product only costs.
            found[place] += np.add.reduce(np.square(change, out=change))
        start += sent.size
    return [float(value) for value in found]
