"""FedProx: a proximal term at the sites, the weighted mean at the server (Li et al. 2020, arXiv 1812.06127).

Each site minimises ``F_k(w) + mu / 2 |w - w_t|^2`` (equation 2), see ``cardionets_core/training/pull.py``.
With mu = 0 it is FedAvg bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cardionets_core.training.local_rule import SITE_OPTIONS
from strategies.fedavg import FedAvg
from strategies.options import Scalar


class FedProx(FedAvg):
    """Sample-weighted mean of sites that stay near the global model.

    Options:
        mu: weight of the proximal term, from 0; 0.01 by default.
    """

    name: ClassVar[str] = "fedprox"
    from_mean: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Scalar]] = SITE_OPTIONS["fedprox"]

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self.options.number("mu", at_least=0)
