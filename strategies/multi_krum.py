"""Multi-Krum: the mean of the most central replies (Blanchard et al. 2017, 1703.02757, section 5).

The m replies with the lowest Krum scores are averaged. Sites count alike by default, since a claimed number
of samples is not checked by distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from strategies.distances import krum_scores, nearest_to_others, squared_distances
from strategies.linear import WEIGHTS, counts
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy
from strategies.weighted_sum import write_sum


class MultiKrum(Strategy):
    """Mean of the most central replies.

    Options:
        attackers: how many sites may send anything at all, from 0; 1 by default.
        select: how many replies are averaged; 0, the default, is n - f - 2, the most that the proof covers.
        weights: ``equal`` (by default) or ``samples``.
    """

    name: ClassVar[str] = "multi_krum"
    defaults: ClassVar[Mapping[str, Scalar]] = {"attackers": 1, "select": 0, "weights": "equal"}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._attackers = self.options.count("attackers", at_least=0)
        self._select = self.options.count("select", at_least=0)
        self._weights = self.options.word("weights", WEIGHTS)

    @property
    def fewest(self) -> int:
        """See ``Strategy``."""
        return max(2 * self._attackers + 3 if self._attackers else 1, self._select)

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
        self.check_enough(replies)
        scores = krum_scores(squared_distances(replies), attackers=self._attackers)
        select = self._select or max(1, len(replies) - self._attackers - 2)
        chosen = [replies[place] for place in nearest_to_others(scores, select)]
        factors = counts(chosen, self._weights)
        write_sum(chosen, factors, total=sum(factors), target=target)
