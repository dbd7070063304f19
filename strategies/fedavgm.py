"""Federated averaging with server momentum (Hsu et al. 2019, arXiv 1909.06335; Nesterov's form as an option).

With the sites' mean m and the module that was sent out w: ``d = m - w``, ``v <- momentum v + d``,
``w <- w + rate (d + momentum v)`` (Nesterov) or ``w + rate v``. Without momentum and at rate 1 it is FedAvg
but for the last bit. v begins at zero in each phase. The sums are in float64; v is kept as float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from cardionets_core.errors import ConfigError
from strategies.fedavg import weighted_means
from strategies.strategy import NOTHING, StoredModule, Strategy

VELOCITY = "velocity"


class FedAvgM(Strategy):
    """Momentum over rounds, at the server.

    Options:
        momentum: 0 to below 1; 0.9 by default.
        rate: of the server, above 0; 1 by default.
        nesterov: true by default.
    """

    name: ClassVar[str] = "fedavgm"
    option_names: ClassVar[frozenset[str]] = frozenset({"momentum", "rate", "nesterov"})
    state_names: ClassVar[tuple[str, ...]] = (VELOCITY,)

    def __init__(self, options: Mapping[str, bool | int | float | str]) -> None:
        super().__init__(options)
        self._momentum = _number(self.options.get("momentum", 0.9))
        self._rate = _number(self.options.get("rate", 1.0))
        self._nesterov = self.options.get("nesterov", True)
        if not 0.0 <= self._momentum < 1.0 or not self._rate > 0.0 or not isinstance(self._nesterov, bool):
            raise ConfigError(
                "momentum lies in 0 to below 1, rate above 0, nesterov is true or false",
                where="study: aggregation.options",
            )

    def combine(
        self,
        replies: Sequence[StoredModule],
        *,
        current: Path,
        target: Path,
        before: Mapping[str, Path] = NOTHING,
        after: Mapping[str, Path] = NOTHING,
    ) -> None:
        """See ``Strategy.combine``."""
        start = 0
        with target.open("wb") as module, after[VELOCITY].open("wb") as memory:
            for mean in weighted_means(replies):
                weights = _stretch(current, start, mean.size)
                change = mean - weights
                velocity = change
                if VELOCITY in before:
                    velocity = self._momentum * _stretch(before[VELOCITY], start, mean.size) + change
                step = change + self._momentum * velocity if self._nesterov else velocity
                module.write((weights + self._rate * step).astype("<f4").tobytes())
                memory.write(velocity.astype("<f4").tobytes())
                start += mean.size
            for handle in (module, memory):
                handle.flush()
                os.fsync(handle.fileno())


def _stretch(path: Path, start: int, count: int) -> np.ndarray:
    return np.fromfile(path, dtype="<f4", count=count, offset=4 * start).astype(np.float64)


def _number(value: bool | int | float | str) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
