"""Ways of combining the replies of a round, one a file, found by name in ``STRATEGIES``."""

from collections.abc import Mapping

from cardionets_core.config.faults import did_you_mean
from cardionets_core.errors import UnknownNameError
from strategies.bulyan import Bulyan
from strategies.ditto import Ditto
from strategies.fedadagrad import FedAdagrad
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedbn import FedBN
from strategies.fednova import FedNova
from strategies.fedprox import FedProx
from strategies.fedyogi import FedYogi
from strategies.flower import FLOWER_STRATEGIES
from strategies.krum import Krum
from strategies.median import Median
from strategies.multi_krum import MultiKrum
from strategies.norm_bound import NormBound
from strategies.options import Scalar
from strategies.qfedavg import QFedAvg
from strategies.scaffold import Scaffold
from strategies.strategy import RoundFacts, StoredModule, Strategy
from strategies.trimmed_mean import TrimmedMean

_ALL: tuple[type[Strategy], ...] = (
    FedAvg,
    FedProx,
    FedAvgM,
    FedAdam,
    FedYogi,
    FedAdagrad,
    Scaffold,
    FedNova,
    FedBN,
    Ditto,
    QFedAvg,
    NormBound,
    Median,
    TrimmedMean,
    Krum,
    MultiKrum,
    Bulyan,
    *FLOWER_STRATEGIES,
)
STRATEGIES: dict[str, type[Strategy]] = {strategy.name: strategy for strategy in _ALL}


def make_strategy(name: str, options: Mapping[str, Scalar]) -> Strategy:
    """Build a strategy from a study's aggregation section.

    Raises:
        UnknownNameError: no strategy has that name.
        ConfigError: an option is wrong.
    """
    if name not in STRATEGIES:
        raise UnknownNameError(
            f"there is no strategy {name!r}{did_you_mean(name, STRATEGIES)}",
            where="study: aggregation.strategy",
            remedy=f"use one of: {', '.join(sorted(STRATEGIES))}",
        )
    return STRATEGIES[name](options)


__all__ = ["STRATEGIES", "FedAvg", "FedAvgM", "RoundFacts", "StoredModule", "Strategy", "make_strategy"]
