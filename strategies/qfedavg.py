"""q-FedAvg: sites with a higher loss count for more (Li et al. 2020, arXiv 1905.10497, algorithm 2).

With the loss F_k of the global model at site k and ``g_k = L (w - w_k)``, ``L = 1 / local_rate``:
``w <- w - sum_k p_k F_k^q g_k / sum_k p_k h_k``, ``h_k = q F_k^(q-1) |g_k|^2 + L F_k^q``. F_k comes with each
reply as ``first_loss``: the site measures it before its first step. The norm is that of each module; a phase
of one module is the paper's step, in a phase of several each has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from cardionets_core.training.local_rule import FIRST_LOSS
from strategies.linear import WEIGHTS, counts, squared_changes
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy
from strategies.weighted_sum import write_sum

TINY = 1e-10
"""Added to a loss, so that one of zero has a power."""


class QFedAvg(Strategy):
    """Fair averaging; with q = 0 it is FedAvg.

    Options:
        local_rate: learning rate of the sites' steps, above 0; needed.
        q: how much a high loss counts, from 0; 0.1 by default.
        weights: ``samples`` (by default) or ``equal``.
    """

    name: ClassVar[str] = "qfedavg"
    defaults: ClassVar[Mapping[str, Scalar]] = {"q": 0.1, "weights": "samples"}
    required: ClassVar[frozenset[str]] = frozenset({"local_rate"})

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._lipschitz = 1.0 / self.options.number("local_rate", above=0)
        self._q = self.options.number("q", at_least=0)
        self._weights = self.options.word("weights", WEIGHTS)

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
        shares = counts(replies, self._weights)
        if self._q == 0.0:
            write_sum(replies, shares, total=sum(shares), target=target)
            return
        losses = [reply.values[FIRST_LOSS] + TINY for reply in replies]
        squares = squared_changes(replies, current=current)
        steps, curvatures = [], []
        for share, loss, square in zip(shares, losses, squares, strict=True):
            power = loss**self._q
            steps.append(share * power * self._lipschitz)
            slope = self._q * loss ** (self._q - 1.0) * self._lipschitz**2 * square
            curvatures.append(share * (slope + self._lipschitz * power))
        total = sum(curvatures)
        write_sum(replies, steps, total=total, target=target, current=current, rest=total - sum(steps))
