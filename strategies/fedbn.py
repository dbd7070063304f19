"""FedBN-style local tensors: some tensors of a module stay at each site (Li et al. 2021, arXiv 2102.07623).

The paper keeps the parameters of normalisation layers local (algorithm 1). A site that sends a module puts
the tensors that it was sent in the place of its own, so their mean is what was sent, and no byte of a local
tensor leaves. What is kept where: ``client/local_tensors.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cardionets_core.training.local_rule import SITE_OPTIONS
from strategies.fedavg import FedAvg
from strategies.options import Scalar


class FedBN(FedAvg):
    """Sample-weighted mean of all tensors but the local ones.

    Options:
        local: patterns over ``module.tensor``, with commas between them; ``*norm*`` by default.
    """

    name: ClassVar[str] = "fedbn"
    from_mean: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Scalar]] = SITE_OPTIONS["fedbn"]
