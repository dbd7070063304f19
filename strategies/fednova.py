"""FedNova: changes are divided by the steps behind them, then averaged (Wang et al. 2020, 2007.07481).

``x <- x - tau * sum_k p_k d_k`` with ``d_k = (x - x_k) / |a_k|_1`` and ``tau = sum_k p_k |a_k|_1`` (equations
5 and 6). ``|a_k|_1`` comes with each reply as ``normaliser``: its steps, or what the paper puts in their
place under momentum and a proximal term; see ``cardionets_core/training/pull.py``. Equal normalisers give
FedAvg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.training.local_rule import NORMALISER, SITE_OPTIONS
from strategies.linear import counts
from strategies.options import Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy
from strategies.weighted_sum import write_sum


class FedNova(Strategy):
    """Normalised averaging.

    Options:
        mu: weight of the sites' proximal term, from 0; 0 by default.
    """

    name: ClassVar[str] = "fednova"
    defaults: ClassVar[Mapping[str, Scalar]] = SITE_OPTIONS["fednova"]

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self.options.number("mu", at_least=0)

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
        samples = counts(replies, "samples")
        total = sum(samples)
        lengths = [reply.values.get(NORMALISER, 0.0) for reply in replies]
        if min(lengths) <= 0.0:
            raise ReplyRefusedError(
                "a site moved its module in no step", where="aggregation", remedy="ask which version it runs"
            )
        if len(set(lengths)) == 1:
            write_sum(replies, samples, total=total, target=target)
            return
        effective = sum(count * length for count, length in zip(samples, lengths, strict=True)) / total
        factors = [count * effective / length for count, length in zip(samples, lengths, strict=True)]
        rest = total - sum(factors)
        write_sum(replies, factors, total=total, target=target, current=current, rest=rest)
