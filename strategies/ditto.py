"""Ditto: a global model by FedAvg, and a personal one at each site (Li et al. 2021, arXiv 2012.04221).

The site minimises ``F_k(v) + lambda / 2 |v - w_t|^2`` over a copy v of its own (equation 2, algorithm 1). It
is measured there and never leaves. What is kept where: ``client/personal.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cardionets_core.training.local_rule import SITE_OPTIONS
from strategies.fedavg import FedAvg
from strategies.options import Scalar


class Ditto(FedAvg):
    """Sample-weighted mean; the personal models are the sites' own business.

    Options:
        lambda: weight of the pull to the global model, from 0; 0.1 by default.
        personal: patterns over modules, with commas between them: of which modules a site has its own, such
            as the heads alone. ``*`` by default.
    """

    name: ClassVar[str] = "ditto"
    # The metrics of the sites' own models are read site by site.
    from_mean: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Scalar]] = SITE_OPTIONS["ditto"]

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self.options.number("lambda", at_least=0)
