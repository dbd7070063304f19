"""Krum: the one reply that lies closest to the others (Blanchard et al. 2017, arXiv 1703.02757, section 4).

Of n sites with f attackers among them, that with the smallest sum of squared distances to its n - f - 2
nearest. The proof asks for n > 2 f + 2, so fewer replies are refused. Distances are those of one module; the
next global module is the chosen site's, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from strategies.distances import krum_scores, nearest_to_others, squared_distances
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy
from strategies.weighted_sum import write_sum


class Krum(Strategy):
    """The most central reply.

    Options:
        attackers: how many sites may send anything at all, from 0; 1 by default.
    """

    name: ClassVar[str] = "krum"
    defaults: ClassVar[Mapping[str, Scalar]] = {"attackers": 1}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._attackers = self.options.count("attackers", at_least=0)

    @property
    def fewest(self) -> int:
        """See ``Strategy``."""
        return 2 * self._attackers + 3 if self._attackers else 1

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
        (chosen,) = nearest_to_others(scores, 1)
        write_sum([replies[chosen]], [1.0], total=1.0, target=target)
