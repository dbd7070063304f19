"""Calibration from sums: Brier score, expected calibration error, slope and intercept, Platt's map.

Brier and ECE come from sums over rows and are exact. Slope and intercept are the logistic regression of the
label on the logit; they are fitted on the score histograms, so that pooled ones need no row of any site.
There a score counts as the centre of its bin, off by at most 0.006 of the logit (scores beyond -12..12 by
more); the slope inherits that as a relative error of about ``WIDTH^2 / (12 var(logit))``, under 1e-4 where
the logit's SD is above 0.4.

Legend: R rows, K columns, b bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from cardionets_core.evaluation.histograms import CENTRES, refuse_strange_labels

ECE_BINS = 15
NEWTON_STEPS = 100
NEWTON_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticFit:
    """``P(label = 1) = sigmoid(intercept + slope * logit)``.

    Attributes:
        slope: [K]; 1 is calibrated, below 1 is overconfident. NaN where the classes do not overlap.
        intercept: [K], of the same fit; 0 is calibrated.
        in_the_large: [K], the intercept with the slope held at 1: above 0, the risk is underestimated.
    """

    slope: np.ndarray
    intercept: np.ndarray
    in_the_large: np.ndarray


def calibration_terms(probability_RK: np.ndarray, label_RK: np.ndarray) -> dict[str, np.ndarray]:
    """What each row adds to each sum; 0 where the label is NaN. float64 ``[R, K]``, bins ``[R, 15 K]``.

    Bins are of equal width, closed below; 1 belongs to the last. Names as in ``calibration_sums``, whose
    ``bin_*`` are flat here, so that ``bootstrap_sums`` takes them.

    Raises:
        ValueError: a label is neither 0, 1 nor NaN, or a probability of an assessed row is not within 0..1.
    """
    refuse_strange_labels(label_RK)
    present = ~np.isnan(label_RK)
    probability = np.where(present, probability_RK, 0.0).astype(np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a probability is within 0..1")
    label = np.where(present, label_RK, 0.0).astype(np.float64)
    place = np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    inside = (place[:, :, None] == np.arange(ECE_BINS)) & present[:, :, None]
    flat = (len(label), label.shape[1] * ECE_BINS)
    return {
        "n": present.astype(np.float64),
        "brier": (probability - label) ** 2 * present,
        "bin_n": inside.reshape(flat).astype(np.float64),
        "bin_probability": (inside * probability[:, :, None]).reshape(flat),
        "bin_label": (inside * label[:, :, None]).reshape(flat),
    }


def calibration_sums(probability_RK: np.ndarray, label_RK: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over rows.

    Returns:
        ``n`` and ``brier`` [K]; ``bin_n``, ``bin_probability``, ``bin_label`` [K, 15]: the number of rows in
        each bin of the probability, and the sums of their probabilities and labels.

    Raises:
        ValueError: as ``calibration_terms``.
    """
    summed = {name: value.sum(axis=0) for name, value in calibration_terms(probability_RK, label_RK).items()}
    return {
        name: value.reshape(-1, ECE_BINS) if name.startswith("bin_") else value
        for name, value in summed.items()
    }


def brier_score(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``mean (p - y)^2``; NaN where n = 0."""
    return _divide(sums["brier"], sums["n"])


def expected_calibration_error(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``sum_b (n_b / n) |mean p_b - mean y_b|`` over 15 bins of equal width; NaN where n = 0. [..., K].

    Takes ``bin_*`` as [..., K, 15] or flat as [..., 15 K].
    """
    gap = np.abs(sums["bin_probability"] - sums["bin_label"])
    return _divide(gap.reshape(*sums["n"].shape, ECE_BINS).sum(axis=-1), sums["n"])


def fit_logistic(sums: Mapping[str, np.ndarray]) -> LogisticFit:
    """Calibration slope and intercept from ``positive`` and ``negative`` histograms [K, b], by Newton.

    The fit exists if and only if the bins of the two classes overlap; elsewhere its values are NaN.
    ``in_the_large`` needs only both classes.
    """
    found = np.full((3, len(sums["positive"])), np.nan)
    for column, (positive, negative) in enumerate(zip(sums["positive"], sums["negative"], strict=True)):
        if _overlap(positive, negative):
            found[:2, column] = _newton(positive, negative, free=np.array([True, True]))
        if positive.any() and negative.any():
            found[2, column] = _newton(positive, negative, free=np.array([False, True]))[1]
    return LogisticFit(slope=found[0], intercept=found[1], in_the_large=found[2])


def apply_platt(logit_RK: np.ndarray, fit: LogisticFit) -> np.ndarray:
    """Recalibrated logits ``intercept + slope * logit``; unchanged in a column without a fit. [R, K].

    The fit comes from the validation split. A site's own fit stays at the site.
    """
    known_K = np.isfinite(fit.slope) & np.isfinite(fit.intercept)
    return np.where(known_K, fit.intercept, 0.0) + np.where(known_K, fit.slope, 1.0) * logit_RK


def _overlap(positive: np.ndarray, negative: np.ndarray) -> bool:
    """Neither class lies wholly at or above the other: then the maximum of the likelihood is finite."""
    ill, well = np.flatnonzero(positive), np.flatnonzero(negative)
    return bool(len(ill) and len(well) and ill[0] < well[-1] and well[0] < ill[-1])


def _newton(positive: np.ndarray, negative: np.ndarray, *, free: np.ndarray) -> np.ndarray:
    """Slope and intercept of the highest likelihood; those that are not ``free`` stay at 1 and 0."""
    rows = positive + negative
    used = rows > 0
    positive, rows = positive[used], rows[used]
    design_2b = np.stack([CENTRES[used], np.ones(used.sum())])
    value = np.array([1.0, 0.0])
    best = _log_likelihood(value, design_2b, positive=positive, rows=rows)
    for _ in range(NEWTON_STEPS):
        probability = expit(value @ design_2b)
        gradient = (design_2b @ (positive - rows * probability))[free]
        weight = rows * probability * (1.0 - probability)
        curvature = ((design_2b * weight) @ design_2b.T)[np.ix_(free, free)]
        step = np.zeros(2)
        step[free] = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        # The likelihood is concave: a step that overshoots is halved.
        for _ in range(60):
            reached = _log_likelihood(value + step, design_2b, positive=positive, rows=rows)
            if reached >= best:
                break
            step = step / 2.0
        else:
            return value
        value, best = value + step, reached
        if np.abs(step).max() < NEWTON_TOLERANCE:
            return value
    return value


def _log_likelihood(
    value: np.ndarray, design_2b: np.ndarray, *, positive: np.ndarray, rows: np.ndarray
) -> float:
    logit = value @ design_2b
    return float((positive * logit - rows * np.logaddexp(0.0, logit)).sum())


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
