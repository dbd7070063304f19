"""Federated averaging with server momentum (Hsu et al. 2019, arXiv 1909.06335; Nesterov's form as an option).

With the sites' mean m and the module that was sent out w: ``d = m - w``, ``v <- momentum v + d``,
``w <- w + rate (d + momentum v)`` (Nesterov) or ``w + rate v``. Without momentum and at rate 1 it is FedAvg
but for the last bit. v begins at zero in each phase. The sums are in float64; v is kept as float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from strategies.fedavg import weighted_means
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, fsynced, stretch

VELOCITY = "velocity"


class FedAvgM(Strategy):
    """Momentum over rounds, at the server.

    Options:
        momentum: 0 to below 1; 0.9 by default.
        rate: of the server, above 0; 1 by default.
        nesterov: true by default.
    """

    name: ClassVar[str] = "fedavgm"
    from_mean: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Scalar]] = {"momentum": 0.9, "rate": 1.0, "nesterov": True}
    state_names: ClassVar[tuple[str, ...]] = (VELOCITY,)

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._momentum = self.options.number("momentum", at_least=0, below=1)
        self._rate = self.options.number("rate", above=0)
        self._nesterov = self.options.flag("nesterov")

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
        start = 0
        with fsynced(target) as module, fsynced(after[VELOCITY]) as memory:
            for mean in weighted_means(replies):
                weights = stretch(current, start, mean.size)
                change = mean - weights
                velocity = change
                if VELOCITY in before:
                    velocity = self._momentum * stretch(before[VELOCITY], start, mean.size) + change
                step = change + self._momentum * velocity if self._nesterov else velocity
                module.write((weights + self._rate * step).astype("<f4").tobytes())
                memory.write(velocity.astype("<f4").tobytes())
                start += mean.size
