"""Federated averaging: the mean of the sites' tensors, weighted by their samples (McMahan et al. 2017).

theta <- sum_k n_k theta_k / sum_k n_k, summed in float64. While every product n_k * theta_k and the sum of
weights are exact in float64 (n_k < 2^29), one site gets its bytes back unchanged, and equal replies give
that very reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, tiles
from strategies.weighted_sum import mean_of, write_weighted_mean


class FedAvg(Strategy):
    """Sample-weighted mean; has no options."""

    name: ClassVar[str] = "fedavg"
    from_mean: ClassVar[bool] = True

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
        write_weighted_mean(replies, target)


def weighted_means(replies: Sequence[StoredModule]) -> Iterator[np.ndarray]:
    """The sample-weighted mean of all replies, tile by tile, float64."""
    samples = [reply.samples for reply in replies]
    for arrays in tiles(replies):
        yield mean_of(arrays, samples)
