"""Comparing two models on the same people, and many comparisons at once (SCIENCE section 7).

Two models on the same rows are not independent samples: their difference is taken inside each bootstrap
replicate, and the test of two correlations knows how the two predictions correlate.

Legend: M replicates, K columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """First minus second model.

    Attributes:
        difference: on the whole data.
        low: lower end of the percentile interval.
        high: upper end.
        p_value: two-sided, ``2 (1 + c) / (1 + M)`` and at most 1, with c the replicates on the rarer side of
            0; NaN without replicates.
        replicates: M, those in which both values are defined.
    """

    difference: float
    low: float
    high: float
    p_value: float
    replicates: int


def paired_difference(
    first_M: np.ndarray, second_M: np.ndarray, *, difference: float, level: float = 0.95
) -> PairedDifference:
    """Paired bootstrap over people.

    Args:
        first_M: a metric of the first model in each replicate.
        second_M: of the second model; replicate m drew the same people, which equal seed, site and people
            give (``bootstrap_sums``, ``bootstrap_histograms``).
        difference: first minus second on the whole data.
        level: of the interval.

    Raises:
        ValueError: the numbers of replicates differ.
    """
    if np.shape(first_M) != np.shape(second_M):
        raise ValueError("paired replicates are equally many")
    differences = np.asarray(first_M, dtype=np.float64) - second_M
    differences = differences[np.isfinite(differences)]
    count = len(differences)
    if not count:
        nan = float("nan")
        return PairedDifference(difference=difference, low=nan, high=nan, p_value=nan, replicates=0)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(differences, [tail, 100.0 - tail])
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return PairedDifference(
        difference=difference,
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2.0 * (1 + rarer) / (1 + count)),
        replicates=count,
    )


def holm(p_K: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p values; NaN stays NaN and is not counted as a comparison. [K]."""
    adjusted = np.full(np.shape(p_K), np.nan)
    known = np.flatnonzero(~np.isnan(p_K))
    order = known[np.argsort(p_K[known], kind="stable")]
    scaled = p_K[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def wilson_interval(successes: float, total: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (nan, nan) where the total is 0."""
    if total <= 0:
        return float("nan"), float("nan")
    z = float(norm.isf((1.0 - level) / 2.0))
    share = successes / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low, high = float(centre - half), float(centre + half)
    return (0.0 if successes == 0 else low), (1.0 if successes == total else high)


def williams_test(
    first: np.ndarray, second: np.ndarray, *, between: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Williams' test of two correlations that share the target (Williams 1959; T2 of Steiger 1980).

    ``t = (r1 - r2) sqrt( (n - 1)(1 + r12) / ( 2 |R| (n - 1)/(n - 3) + rbar^2 (1 - r12)^3 ) )``, n - 3 degrees
    of freedom, with ``|R| = 1 - r1^2 - r2^2 - r12^2 + 2 r1 r2 r12`` and ``rbar = (r1 + r2)/2``.

    Args:
        first: r1, target with the first model's prediction, [K].
        second: r2, target with the second's.
        between: r12 of the two predictions on the same rows: ``pearson`` of ``regression_sums`` of the one
            against the other, with NaN where the target is missing.
        count: n, independent people.

    Returns:
        t and its two-sided p value; NaN where n < 4 or the formula has no finite value.
    """
    determinant = 1.0 - first**2 - second**2 - between**2 + 2.0 * first * second * between
    mean = (first + second) / 2.0
    freedom = np.maximum(count - 3.0, 0.0)
    below = 2.0 * np.maximum(determinant, 0.0) * (count - 1.0) + mean**2 * (1.0 - between) ** 3 * freedom
    squared = _divide((count - 1.0) * (1.0 + between) * freedom, below)
    statistic = (first - second) * np.sqrt(squared)
    return statistic, 2.0 * t.sf(np.abs(statistic), np.where(freedom > 0, freedom, np.nan))


def steiger_test(
    first: np.ndarray, second: np.ndarray, *, between: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Steiger's Z of two correlations that share the target, with the pooled mean correlation (Steiger 1980).

    ``Z = (atanh r1 - atanh r2) sqrt(n - 3) / sqrt(2 - 2 s)``,
    ``s = [ r12 (1 - 2 rbar^2) - rbar^2 (1 - 2 rbar^2 - r12^2)/2 ] / (1 - rbar^2)^2``. Arguments and returns
    as ``williams_test``; Z is standard normal.
    """
    mean2 = ((first + second) / 2.0) ** 2
    shared = between * (1.0 - 2.0 * mean2) - 0.5 * mean2 * (1.0 - 2.0 * mean2 - between**2)
    correlation = _divide(shared, (1.0 - mean2) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.arctanh(first) - np.arctanh(second)
    statistic = gap * np.sqrt(_divide(np.maximum(count - 3.0, 0.0), 2.0 - 2.0 * correlation))
    statistic = np.where((count > 3) & np.isfinite(statistic), statistic, np.nan)
    return statistic, 2.0 * norm.sf(np.abs(statistic))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.broadcast_arrays(np.asarray(above, dtype=np.float64), below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
