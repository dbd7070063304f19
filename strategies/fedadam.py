"""FedAdam: Adam at the server (Reddi et al. 2021, arXiv 2003.00295, algorithm 2).

``v <- beta_2 v + (1 - beta_2) d^2``. The paper has no correction of the first rounds' bias. Flower's FedAdam
has Adam's with an exponent of one more than the round; ``bias_correction``, the default, is that very one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from strategies.adaptive import Adaptive
from strategies.options import Scalar


class FedAdam(Adaptive):
    """Adam at the server.

    Options:
        rate: above 0; 0.1 by default.
        beta_1: 0 to below 1; 0.9 by default.
        beta_2: 0 to below 1; 0.99 by default.
        tau: above 0; 0.001 by default.
        bias_correction: true by default; false is the paper.
    """

    name: ClassVar[str] = "fedadam"
    from_mean: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Scalar]] = {
        "rate": 0.1,
        "beta_1": 0.9,
        "beta_2": 0.99,
        "tau": 0.001,
        "bias_correction": True,
    }

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        self._beta_2 = self.options.number("beta_2", at_least=0, below=1)
        self._corrects = self.options.flag("bias_correction")

    def second_moment(self, second: np.ndarray, squared: np.ndarray) -> np.ndarray:
        """See ``Adaptive``."""
        return self._beta_2 * second + (1.0 - self._beta_2) * squared

    def rate_in(self, number: int) -> float:
        """See ``Adaptive``."""
        if not self._corrects:
            return self.rate
        power = number + 1.0
        return self.rate * math.sqrt(1.0 - self._beta_2**power) / (1.0 - self.beta_1**power)
