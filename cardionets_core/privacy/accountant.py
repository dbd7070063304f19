"""How much privacy mechanisms spend together: epsilon at a delta, for adding or removing one patient.

Comes in: what ran, as noise multiplier, sampling rate and steps of Poisson-subsampled Gaussian mechanisms (a
rate of 1 is the plain Gaussian mechanism). Goes out: an epsilon that is an upper bound. Two accountants of
Opacus's: ``rdp`` (Mironov et al. 2019, arXiv 1908.10530) and ``prv`` (Gopi et al. 2021, arXiv 2106.02848),
the tighter one. The only door to Opacus's accountants.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

Accountant = Literal["prv", "rdp"]

LARGEST_NUMERIC = 40.0
"""Above it ``prv`` convolves for minutes to tell one meaningless number from another; ``rdp`` stands."""
MOST_DIFFERENT = 24
"""Different mechanisms that ``prv`` composes; each costs a convolution of its own."""
MOST_STEPS = 100_000
"""Steps that ``prv`` composes: its grid, and the memory for it, grows with them."""
LARGEST_NOISE = 1e4
SLACK = 0.002
"""A plan spends all of its epsilon but at most this share."""
MOST_TRIES = 25
QUICK_ORDERS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 63.0)


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
    it could not give a number of use: for very large epsilons, and for very many steps or mechanisms.

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
    few = len(history) <= MOST_DIFFERENT and sum(steps for _, _, steps in history) <= MOST_STEPS
    if accountant == "prv" and bound <= LARGEST_NUMERIC and few:
        numeric = _ask(PRVAccountant(), history, delta)
        if math.isfinite(numeric) and numeric > 0.0:
            return min(bound, numeric)
    return bound


def stays_within(
    mechanisms: Sequence[Mechanism], epsilon: float, *, delta: float, accountant: Accountant = "prv"
) -> bool:
    """Whether all mechanisms together spend at most ``epsilon``; told quickly where that is far off."""
    history = _history(mechanisms)
    if history and min(noise for noise, _, _ in history) > 0.0 and _quick(history, delta) <= epsilon:
        return True
    return epsilon_of(mechanisms, delta=delta, accountant=accountant) <= epsilon


def noise_for(plan: Sequence[Part], *, epsilon: float, delta: float, accountant: Accountant = "prv") -> float:
    """The noise multiplier with which a plan spends ``epsilon``, or a little less.

    Args:
        plan: its parts; those without steps do not count.
        epsilon: the target, above 0.
        delta: as of ``epsilon_of``.
        accountant: which.

    Returns:
        The noise multiplier; 0 for a plan without steps.

    Raises:
        ValueError: no noise is enough.
    """
    if not any(part.steps for part in plan):
        return 0.0
    return _noise_for(tuple(plan), epsilon, delta, accountant)


@functools.lru_cache(maxsize=64)
def _noise_for(plan: tuple[Part, ...], epsilon: float, delta: float, accountant: Accountant) -> float:
    def spent(noise: float) -> float:
        return epsilon_of([part.with_noise(noise) for part in plan], delta=delta, accountant=accountant)

    # The logarithm of epsilon falls nearly on a line over that of the noise: a few chords find the place.
    place, slope, enough = math.log(_rough(plan, epsilon, delta)), -1.3, math.inf
    before: tuple[float, float] | None = None
    for _ in range(MOST_TRIES):
        found = spent(math.exp(place))
        if found <= epsilon:
            enough = min(enough, math.exp(place))
            if found >= (1.0 - SLACK) * epsilon:
                return math.exp(place)
        here = math.log(max(found, 1e-12))
        if before is not None and before[0] != place:
            slope = min(-0.3, max(-4.0, (here - before[1]) / (place - before[0])))
        before = (place, here)
        place += (math.log((1.0 - SLACK / 2.0) * epsilon) - here) / slope
        if place > math.log(LARGEST_NOISE):
            break
    if math.isfinite(enough):
        return enough
    raise ValueError(f"no noise spends at most {epsilon} at a delta of {delta} in this plan")


def _rough(plan: Sequence[Part], epsilon: float, delta: float) -> float:
    """A noise near the wanted one."""

    def spent(noise: float) -> float:
        return _quick([(p.scale * noise, p.sample_rate, p.steps) for p in plan if p.steps], delta)

    low, high = 0.1, 0.2
    while spent(high) > epsilon and high < LARGEST_NOISE:
        low, high = high, 2.0 * high
    for _ in range(5):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    return high


def _quick(history: Sequence[tuple[float, float, int]], delta: float) -> float:
    """An upper bound on epsilon from a handful of orders of Renyi's divergence."""
    total = sum(
        np.asarray(compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=list(QUICK_ORDERS)))
        for noise, rate, steps in history
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(get_privacy_spent(orders=list(QUICK_ORDERS), rdp=total, delta=delta)[0])


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
