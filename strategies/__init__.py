"""Ways of combining the replies of a round, one a file, found by name in ``STRATEGIES``."""

from cardionets_core.errors import UnknownNameError
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.strategy import StoredModule, Strategy

STRATEGIES: dict[str, type[Strategy]] = {strategy.name: strategy for strategy in (FedAvg, FedAvgM)}


def make_strategy(name: str, options: dict[str, bool | int | float | str]) -> Strategy:
    """Build a strategy from a study's aggregation section.

    Raises:
        UnknownNameError: no strategy has that name.
    """
    if name not in STRATEGIES:
        raise UnknownNameError(
            f"there is no strategy {name!r}",
            where="study: aggregation.strategy",
            remedy=f"use one of: {', '.join(sorted(STRATEGIES))}",
        )
    return STRATEGIES[name](options)


__all__ = ["STRATEGIES", "FedAvg", "FedAvgM", "StoredModule", "Strategy", "make_strategy"]
