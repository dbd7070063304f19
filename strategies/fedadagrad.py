"""FedAdagrad: Adagrad at the server (Reddi et al. 2021, arXiv 2003.00295, algorithm 2): ``v <- v + d^2``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from strategies.adaptive import Adaptive
from strategies.options import Scalar


class FedAdagrad(Adaptive):
    """Adagrad at the server.

    Options:
        rate: above 0; 0.1 by default.
        beta_1: 0 to below 1; 0 by default.
        tau: above 0; 0.001 by default.
    """

    name: ClassVar[str] = "fedadagrad"
    from_mean: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Scalar]] = {"rate": 0.1, "beta_1": 0.0, "tau": 0.001}

    def second_moment(self, second: np.ndarray, squared: np.ndarray) -> np.ndarray:
        """See ``Adaptive``."""
        return second + squared
