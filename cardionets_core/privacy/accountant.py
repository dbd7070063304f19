"""How much privacy mechanisms spend together: epsilon at a delta, for adding or removing one patient.

Comes in: what ran, as noise multiplier, sampling rate and steps of Poisson-subsampled Gaussian mechanisms (a
rate of 1 is the plain Gaussian mechanism). Goes out: an epsilon that is an upper bound. Two accountants of
Opacus's: ``rdp`` (Mironov et al. 2019, arXiv 1908.10530) and ``prv`` (Gopi et al. 2021, arXiv 2106.02848),
the tighter one. The only door to Opacus's accountants.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant

Accountant = Literal["prv", "rdp"]

LARGEST_NUMERIC = 40.0
"""Above it ``prv`` convolves for minutes to tell one meaningless number from another; ``rdp`` stands."""
MOST_DIFFERENT = 24
"""Different mechanisms that ``prv`` composes; each costs a convolution of its own."""
LARGEST_NOISE = 1e4
STEP = 1.001
"""Noise multipliers are found to a tenth of a percent, on the side of more noise."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mechanism:
    """A Gaussian mechanism on a Poisson sample of the patients, repeated.

    Attributes:
        noise_multiplier: standard deviation of the noise over the bound of a patient's part; 0 is none.
        sample_rate: chance of a patient to be in a step, above 0 and at most 1.
        steps: how often.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (self.noise_multiplier >= 0.0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"a noise multiplier of {self.noise_multiplier}")
        if not 0.0 < self.sample_rate <= 1.0:
            raise ValueError(f"a sampling rate of {self.sample_rate}; it lies above 0 and is at most 1")
        if self.steps < 0:
            raise ValueError(f"{self.steps} steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a plan whose noise is to be found.

    Attributes:
        sample_rate: as of a mechanism.
        steps: likewise.
        scale: its noise multiplier over that of the plan.
    """

    sample_rate: float
    steps: int
    scale: float = 1.0

    def with_noise(self, noise_multiplier: float) -> Mechanism:
        """The mechanism that it is with the plan's noise multiplier."""
        return Mechanism(
            noise_multiplier=self.scale * noise_multiplier, sample_rate=self.sample_rate, steps=self.steps
        )


def epsilon_of(mechanisms: Iterable[Mechanism], *, delta: float, accountant: Accountant = "prv") -> float:
    """Epsilon of all mechanisms together.

    Both accountants give upper bounds, so ``prv`` gives the smaller of the two. It is left out where
    it could not give a number of use: for very large epsilons, and for very many different mechanisms.

    Args:
        mechanisms: in any order.
        delta: above 0 and below 1.
        accountant: which.

    Returns:
        0 where nothing ran; infinity where something ran without noise.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"a delta of {delta}; it lies between 0 and 1")
    history = _history(mechanisms)
    if not history:
        return 0.0
    if min(noise for noise, _, _ in history) == 0.0:
        return math.inf
    bound = _ask(RDPAccountant(), history, delta)
    if accountant == "prv" and bound <= LARGEST_NUMERIC and len(history) <= MOST_DIFFERENT:
        numeric = _ask(PRVAccountant(), history, delta)
        if math.isfinite(numeric) and numeric > 0.0:
            return min(bound, numeric)
    return bound


def noise_for(plan: Sequence[Part], *, epsilon: float, delta: float, accountant: Accountant = "prv") -> float:
    """The least noise multiplier with which a plan spends at most ``epsilon``.

    Args:
        plan: its parts; those without steps do not count.
        epsilon: the target, above 0.
        delta: as of ``epsilon_of``.
        accountant: which.

    Returns:
        A noise multiplier at most a tenth of a percent above the least; 0 for a plan without steps.

    Raises:
        ValueError: no noise is enough.
    """

    def spent(noise: float, asked: Accountant) -> float:
        mechanisms = [part.with_noise(noise) for part in plan]
        return epsilon_of(mechanisms, delta=delta, accountant=asked)

    if not any(part.steps for part in plan):
        return 0.0
    high = 0.5
    while spent(high, "rdp") > epsilon:
        high *= 2.0
        if high > LARGEST_NOISE:
            raise ValueError(f"no noise spends at most {epsilon} at a delta of {delta} in this plan")
    # The quick accountant finds the neighbourhood, from above for both.
    high = _least(lambda noise: spent(noise, "rdp") <= epsilon, low=high / 1e3, high=high)
    if accountant == "prv":
        high = _least(lambda noise: spent(noise, "prv") <= epsilon, low=high / 2.0, high=high)
    return high


def _least(is_enough: Callable[[float], bool], *, low: float, high: float) -> float:
    while high / low > STEP:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _history(mechanisms: Iterable[Mechanism]) -> list[tuple[float, float, int]]:
    """Opacus's form, equal mechanisms together."""
    steps: dict[tuple[float, float], int] = {}
    for each in mechanisms:
        if each.steps:
            key = (each.noise_multiplier, each.sample_rate)
            steps[key] = steps.get(key, 0) + each.steps
    return [(noise, rate, count) for (noise, rate), count in sorted(steps.items())]


def _ask(
    accountant: PRVAccountant | RDPAccountant, history: list[tuple[float, float, int]], delta: float
) -> float:
    accountant.history = list(history)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Their quadratures touch the ends of the range, where a logarithm is infinite.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta))
