"""SCAFFOLD: control variates against the drift of the sites (Karimireddy et al. 2020, arXiv 1910.06378).

Algorithm 1 with option II: ``x <- x + rate * mean(y_i - x)`` and ``c <- c + |S| / N * mean(c_i+ - c_i)`` over
the sites S of a round among N that serve the phase. c goes out with each module as ``MODULE.control``, the
site's change of c_i comes back under that name. The site's side is ``cardionets_core/training/controls.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from cardionets_core.training.local_rule import CONTROL
from strategies.linear import WEIGHTS, counts
from strategies.options import Scalar
from strategies.strategy import (
    FIRST_ROUND,
    NOTHING,
    RoundFacts,
    StoredModule,
    Strategy,
    fsynced,
    stretch,
    tiles,
)
from strategies.weighted_sum import write_sum


class Scaffold(Strategy):
    """Mean of the sites' changes, and of the changes of their control variates.

    Options:
        rate: of the server, above 0; 1 by default.
        weights: ``samples`` (the mean of this house, by default) or ``equal`` (the paper's).
    """

    name: ClassVar[str] = "scaffold"
    defaults: ClassVar[Mapping[str, Scalar]] = {"rate": 1.0, "weights": "samples"}
    state_names: ClassVar[tuple[str, ...]] = (CONTROL,)

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._rate = self.options.number("rate", above=0)
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
        factors = counts(replies, self._weights)
        total = sum(factors)
        # (1 - rate) x + rate * mean(y): at rate 1 the mean alone, so one site gets its bytes back.
        write_sum(
            replies,
            [self._rate * factor for factor in factors],
            total=total,
            target=target,
            current=current,
            rest=(1.0 - self._rate) * total,
        )
        share = len(replies) / max(facts.population, len(replies))
        changes = [replace(reply, path=reply.extras[CONTROL]) for reply in replies]
        start = 0
        with fsynced(after[CONTROL]) as memory:
            for arrays in tiles(changes):
                control = np.zeros(arrays[0].size)
                for factor, values in zip(factors, arrays, strict=True):
                    control += factor * values.astype(np.float64)
                control *= share / total
                if CONTROL in before:
                    control += stretch(before[CONTROL], start, control.size)
                memory.write(control.astype("<f4").tobytes())
                start += control.size
