"""Coordinate median: of each number the middle one (Yin et al. 2018, arXiv 1803.01498, option I).

Sites count alike, whatever their samples: a claimed count moves nothing. Of an even number of sites it is the
mean of the two in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from strategies.sorting import middle, sort_sites
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, fsynced, stacks


class Median(Strategy):
    """Coordinate-wise median; has no options."""

    name: ClassVar[str] = "median"

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
        with fsynced(target) as handle:
            for stack in stacks(replies):
                handle.write(middle(sort_sites(stack)).astype("<f4").tobytes())
