"""Norm bounding: each site's change is cut to a bound before the mean (Sun et al. 2019, arXiv 1911.07963).

``w <- w + sum_k p_k min(1, bound / |w_k - w|) (w_k - w)`` (section 4), with the norm of each module. A site
cannot move the model by more than its share of the bound, whatever it sends. Where no change passes the bound
it is the plain mean, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from strategies.linear import WEIGHTS, counts, squared_changes
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy
from strategies.weighted_sum import write_sum


class NormBound(Strategy):
    """Mean of clipped changes.

    Options:
        bound: largest L2 norm of a site's change of a module, above 0; needed.
        weights: ``samples`` (by default) or ``equal``. Under ``samples`` a site's share is what it claims.
    """

    name: ClassVar[str] = "norm_bound"
    defaults: ClassVar[Mapping[str, Scalar]] = {"weights": "samples"}
    required: ClassVar[frozenset[str]] = frozenset({"bound"})

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._bound = self.options.number("bound", above=0)
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
        norms = [math.sqrt(square) for square in squared_changes(replies, current=current)]
        kept = [
            share if norm <= self._bound else share * self._bound / norm
            for share, norm in zip(shares, norms, strict=True)
        ]
        total = sum(shares)
        rest = 0.0 if kept == shares else total - sum(kept)
        write_sum(replies, kept, total=total, target=target, current=current, rest=rest)
