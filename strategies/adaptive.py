"""Adaptive steps at the server, of FedAdam, FedYogi and FedAdagrad (Reddi et al. 2021, 2003.00295).

Algorithm 2: with the sites' mean change d, ``m <- beta_1 m + (1 - beta_1) d``, a second moment v of d^2 by
the optimiser's own rule, and ``w <- w + rate m / (sqrt(v) + tau)``. m and v begin at zero in each phase, as
Flower's do (the paper begins v at tau^2 or more). Sums are in float64; m and v are kept as float32.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from strategies.fedavg import weighted_means
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, fsynced, stretch

MOMENTUM, SECOND = "momentum", "second"


class Adaptive(Strategy):
    """A server optimiser with two moments."""

    state_names: ClassVar[tuple[str, ...]] = (MOMENTUM, SECOND)

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self.rate = self.options.number("rate", above=0)
        self.beta_1 = self.options.number("beta_1", at_least=0, below=1)
        self.tau = self.options.number("tau", above=0)

    @abstractmethod
    def second_moment(self, second: np.ndarray, squared: np.ndarray) -> np.ndarray:
        """The next second moment, from the last one and the squared mean change; both float64."""

    def rate_in(self, number: int) -> float:
        """The server's rate in a round, counted from 1."""
        return self.rate

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
        start, rate = 0, self.rate_in(facts.number)
        with (
            fsynced(target) as module,
            fsynced(after[MOMENTUM]) as first_file,
            fsynced(after[SECOND]) as second_file,
        ):
            for mean in weighted_means(replies):
                weights = stretch(current, start, mean.size)
                change = mean - weights
                first, second = (
                    stretch(before[name], start, mean.size) if name in before else np.zeros(mean.size)
                    for name in (MOMENTUM, SECOND)
                )
                first = self.beta_1 * first + (1.0 - self.beta_1) * change
                second = self.second_moment(second, change * change)
                step = rate * first / (np.sqrt(second) + self.tau)
                for handle, values in ((module, weights + step), (first_file, first), (second_file, second)):
                    handle.write(values.astype("<f4").tobytes())
                start += mean.size
