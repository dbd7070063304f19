"""How much each reply counts, and how far each moved the module: the numbers of a weighted sum.

Comes in: stored replies. Goes out: one number a site. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from strategies.strategy import StoredModule, stretch, tiles

WEIGHTS = ("equal", "samples")


def counts(replies: Sequence[StoredModule], weights: str) -> list[float]:
    """How much each reply counts: its ``samples``, or all alike (``equal``)."""
    return [float(reply.samples) if weights == "samples" else 1.0 for reply in replies]


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
