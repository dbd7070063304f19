"""Lower bounds on epsilon from an attack's statistic with and without a canary.

Comes in: the statistic of many trainings without the canary and of as many with it; larger speaks for the
canary. Goes out: what epsilon the mechanism has at least, at 95 % confidence. The first half of the trainings
chooses the threshold, the other half alone is counted.

Two bounds. ``clopper_pearson`` assumes nothing: if (epsilon, delta) held, the true-positive rate would be at
most ``exp(epsilon) * false-positive rate + delta`` (Jagielski et al., NeurIPS 2020). ``gaussian`` holds for
mechanisms that are Gaussian as a whole (Nasr et al., USENIX Security 2023): both error rates bound mu, and mu
gives epsilon at any delta (Dong et al., J R Stat Soc B 2022); it needs far fewer trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm

CONFIDENCE = 0.95
MOST_THRESHOLDS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What was found.

    Attributes:
        clopper_pearson: lower bound on epsilon, whatever the mechanism.
        gaussian: lower bound on epsilon of a Gaussian mechanism.
        mu: lower bound on its mu.
    """

    clopper_pearson: float
    gaussian: float
    mu: float


def bounds_of(out_N: np.ndarray, in_N: np.ndarray, *, delta: float) -> Bounds:
    """Bounds from the statistics of trainings without and with the canary."""
    half_out, half_in = len(out_N) // 2, len(in_N) // 2
    chosen = {}
    for kind, of in (("plain", _plain(delta)), ("gaussian", _mu)):
        threshold, swapped = _choose(out_N[:half_out], in_N[:half_in], of)
        rates = _rates(out_N[half_out:], in_N[half_in:], threshold, swapped)
        chosen[kind] = max(0.0, float(of(*rates)))
    return Bounds(
        clopper_pearson=chosen["plain"],
        gaussian=epsilon_of_mu(chosen["gaussian"], delta=delta),
        mu=chosen["gaussian"],
    )


def epsilon_of_mu(mu: float, *, delta: float) -> float:
    """Epsilon of a mu-Gaussian mechanism (Dong et al., corollary 2.13)."""
    if mu <= 0.0:
        return 0.0

    def excess(epsilon: float) -> float:
        second = math.exp(epsilon + float(norm.logcdf(-epsilon / mu - mu / 2)))
        return float(norm.cdf(-epsilon / mu + mu / 2)) - second - delta

    if excess(0.0) <= 0.0:
        return 0.0
    return float(brentq(excess, 0.0, mu * mu + 12.0 * mu + 1.0))


def upper_rate(count: np.ndarray, total: int) -> np.ndarray:
    """Rates that are not below the true ones: both of a bound hold together at ``CONFIDENCE``."""
    count = np.asarray(count)
    risk = (1.0 - CONFIDENCE) / 2.0
    return np.where(count >= total, 1.0, beta.ppf(1.0 - risk, count + 1, np.maximum(total - count, 1)))


Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A bound from upper bounds of the false-positive and the false-negative rate."""


def _plain(delta: float) -> Rule:
    def of(false_positive: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(1.0 - false_negative - delta, 1e-300) / false_positive)

    return of


def _mu(false_positive: np.ndarray, false_negative: np.ndarray) -> np.ndarray:
    # Rates of 1 give minus infinity: no bound.
    return np.asarray(norm.isf(false_positive) + norm.isf(false_negative))


def _choose(out_N: np.ndarray, in_N: np.ndarray, of: Rule) -> tuple[float, bool]:
    every = np.unique(np.concatenate([out_N, in_N]))
    middles = (every[1:] + every[:-1]) / 2
    if not len(middles):
        return 0.0, False
    tried = middles[np.linspace(0, len(middles) - 1, min(len(middles), MOST_THRESHOLDS)).astype(int)]
    found = [of(*_rates(out_N, in_N, tried, swapped)) for swapped in (False, True)]
    swapped = bool(found[1].max() > found[0].max())
    return float(tried[found[swapped].argmax()]), swapped


def _rates(
    out_N: np.ndarray, in_N: np.ndarray, threshold: np.ndarray | float, swapped: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of both error rates; swapped, it is the canary's absence that is detected."""
    above = len(out_N) - np.searchsorted(np.sort(out_N), threshold, side="right")
    missed = np.searchsorted(np.sort(in_N), threshold, side="right")
    false_positive, false_negative = upper_rate(above, len(out_N)), upper_rate(missed, len(in_N))
    return (false_negative, false_positive) if swapped else (false_positive, false_negative)
