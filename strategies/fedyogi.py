"""FedYogi: Yogi at the server (Reddi et al. 2021, arXiv 2003.00295, algorithm 2).

``v <- v - (1 - beta_2) d^2 sign(v - d^2)``: the second moment falls no faster than it rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from strategies.adaptive import Adaptive
from strategies.options import Scalar


class FedYogi(Adaptive):
    """Yogi at the server.

    Options:
        rate: above 0; 0.01 by default.
        beta_1: 0 to below 1; 0.9 by default.
        beta_2: 0 to below 1; 0.99 by default.
        tau: above 0; 0.001 by default.
    """

    name: ClassVar[str] = "fedyogi"
    from_mean: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Scalar]] = {"rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._beta_2 = self.options.number("beta_2", at_least=0, below=1)

    def second_moment(self, second: np.ndarray, squared: np.ndarray) -> np.ndarray:
        """See ``Adaptive``."""
        return second - (1.0 - self._beta_2) * squared * np.sign(second - squared)
