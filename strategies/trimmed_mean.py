"""Trimmed mean: of each number the mean without the extremes (Yin et al. 2018, 1803.01498, option II).

Of n sites, ``int(trim * n)`` are cut at either end of every coordinate. Sites count alike, whatever their
samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from strategies.options import Scalar
from strategies.sorting import sort_sites
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, fsynced, stacks


class TrimmedMean(Strategy):
    """Coordinate-wise trimmed mean; with trim = 0 the mean of all sites.

    Options:
        trim: share cut at either end, 0 to below 0.5; 0.2 by default.
    """

    name: ClassVar[str] = "trimmed_mean"
    defaults: ClassVar[Mapping[str, Scalar]] = {"trim": 0.2}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._trim = self.options.number("trim", at_least=0, below=0.5)

    def combine(
        self,
        replies: Sequence[StoredModule],
        *,
        current: Path,
        target: Path,
        before: Mapping[str, Path] = NOTHING,
        after: Mapping[str, Path] = NOTHING,
        facts: RoundFacts = FIRST_ROUND,
    ) -> None:
        """See ``Strategy.combine``."""
        cut = int(self._trim * len(replies))
        with fsynced(target) as handle:
            for stack in stacks(replies):
                # Also where nothing is cut: summed in order of size, the sum knows no order of sites.
                kept = sort_sites(stack)[cut : len(replies) - cut]
                mean = np.add.reduce(kept, axis=0, dtype=np.float64) / kept.shape[0]
                handle.write(mean.astype("<f4").tobytes())
