"""Bulyan: a selection by Krum, then means around the medians (El Mhamdi et al. 2018, 1802.07927).

Of n >= 4 f + 3 replies, ``theta = n - 2 f`` are selected by Krum, one after the other without those chosen
before (section 4); then each coordinate is the mean of the ``theta - 2 f`` values nearest to the selected
ones' median. Of two values equally near, the lower counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from strategies.distances import krum_scores, nearest_to_others, squared_distances
from strategies.options import Scalar
from strategies.sorting import middle, sort_sites
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, fsynced, stacks


class Bulyan(Strategy):
    """Mean around the median of the most central replies.

    Options:
        attackers: how many sites may send anything at all, from 0; 1 by default.
        selection: ``iterated`` (the paper, by default), or ``once``: the theta lowest scores of one Krum, as
            Flower does.
    """

    name: ClassVar[str] = "bulyan"
    defaults: ClassVar[Mapping[str, Scalar]] = {"attackers": 1, "selection": "iterated"}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._attackers = self.options.count("attackers", at_least=0)
        self._iterated = self.options.word("selection", ("iterated", "once")) == "iterated"

    @property
    def fewest(self) -> int:
        """See ``Strategy``."""
        return 4 * self._attackers + 3 if self._attackers else 1

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
        chosen = [replies[place] for place in self._selected(squared_distances(replies))]
        width = len(chosen) - 2 * self._attackers
        with fsynced(target) as handle:
            for stack in stacks(chosen):
                handle.write(mean_near_median(sort_sites(stack), width).astype("<f4").tobytes())

    def _selected(self, distances: np.ndarray) -> list[int]:
        count = distances.shape[0] - 2 * self._attackers
        if not self._iterated:
            return nearest_to_others(krum_scores(distances, attackers=self._attackers), count)
        left, chosen = list(range(distances.shape[0])), list[int]()
        while len(chosen) < count:
            scores = krum_scores(distances[np.ix_(left, left)], attackers=self._attackers)
            chosen.append(left.pop(nearest_to_others(scores, 1)[0]))
        return sorted(chosen)


def mean_near_median(ordered: np.ndarray, width: int) -> np.ndarray:
    """Mean of the ``width`` values nearest to the median, of each column.

    Args:
        ordered: float32 [sites, values], sorted along the sites; the nearest ones stand side by side.
        width: 1 to the number of sites.

    Returns:
        float64 [values].
    """
    centre = middle(ordered)
    begin = np.zeros(centre.size, dtype=np.intp)
    for place in range(ordered.shape[0] - width):
        # The window moves on while the value that enters is nearer than the one that leaves.
        nearer = ordered[place + width] - centre < centre - ordered[place]
        begin += (begin == place) & nearer
    total = np.zeros(centre.size)
    for place in range(ordered.shape[0]):
        inside = (begin <= place) & (place < begin + width)
        total += np.where(inside, ordered[place], 0.0)
    return total / width
