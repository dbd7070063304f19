"""Thresholds, and what a test does at a threshold, from score histograms (SCIENCE section 7).

A threshold is chosen on the histograms of the validation split and applied to those of the test split. It
stands on an edge of the bins, so the counts at it are exact. A row is called positive if its score is at
least the threshold; ``-inf`` calls all rows positive, ``inf`` none.

Legend: K columns, b bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cardionets_core.evaluation.histograms import EDGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Counts at one threshold a column.

    Attributes:
        true_positive: [K], as the others.
        false_positive: negatives called positive.
        true_negative: negatives not called.
        false_negative: positives not called.
    """

    true_positive: np.ndarray
    false_positive: np.ndarray
    true_negative: np.ndarray
    false_negative: np.ndarray


def threshold_at_sensitivity(sums: Mapping[str, np.ndarray], target: float) -> np.ndarray:
    """Highest edge whose sensitivity is at least ``target`` (0..1); NaN without positives. [K]."""
    sensitivity, _ = _at_all_edges(sums)
    enough = sensitivity >= target
    last = enough.shape[-1] - 1 - np.argmax(enough[..., ::-1], axis=-1)
    return np.where(enough.any(axis=-1), EDGES[last], np.nan)


def threshold_at_specificity(sums: Mapping[str, np.ndarray], target: float) -> np.ndarray:
    """Lowest edge whose specificity is at least ``target`` (0..1); NaN without negatives. [K]."""
    _, specificity = _at_all_edges(sums)
    enough = specificity >= target
    return np.where(enough.any(axis=-1), EDGES[np.argmax(enough, axis=-1)], np.nan)


def threshold_of_youden(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Lowest edge that maximises sensitivity + specificity - 1; NaN without one of the classes. [K]."""
    sensitivity, specificity = _at_all_edges(sums)
    youden = sensitivity + specificity
    defined = np.isfinite(youden).all(axis=-1)
    return np.where(defined, EDGES[np.argmax(np.nan_to_num(youden), axis=-1)], np.nan)


def nearest_edge(logit: float) -> float:
    """The edge next to a threshold that was given otherwise, such as 0 for a probability of one half."""
    return float(EDGES[int(np.argmin(np.abs(EDGES - logit)))]) if np.isfinite(logit) else float(logit)


def confusion_at(sums: Mapping[str, np.ndarray], threshold_K: np.ndarray) -> Confusion:
    """Counts at one threshold a column; NaN where the threshold is NaN.

    Raises:
        ValueError: a threshold is not an edge of the bins, where the counts would be guesses.
    """
    place_K = np.searchsorted(EDGES, threshold_K)
    known_K = ~np.isnan(threshold_K)
    place_K = np.where(known_K, place_K, 0)
    if not (EDGES[np.minimum(place_K, len(EDGES) - 1)] == threshold_K)[known_K].all():
        raise ValueError("a threshold stands between two edges of the bins: take nearest_edge of it")
    called_K = {}
    for name in ("positive", "negative"):
        above = _called(sums[name])[np.arange(len(place_K)), place_K]
        called_K[name] = np.where(known_K, above, np.nan)
    return Confusion(
        true_positive=called_K["positive"],
        false_positive=called_K["negative"],
        true_negative=sums["negative"].sum(axis=-1) - called_K["negative"],
        false_negative=sums["positive"].sum(axis=-1) - called_K["positive"],
    )


def rates(confusion: Confusion) -> dict[str, np.ndarray]:
    """Measures of a confusion matrix, each [K]; NaN where one is not defined.

    ``sensitivity``, ``specificity``, ``ppv`` and ``npv`` (at the prevalence of these rows, see
    ``predictive_values`` for another), ``accuracy``, ``f1`` and Cohen's ``kappa``.
    """
    tp, fp = confusion.true_positive, confusion.false_positive
    tn, fn = confusion.true_negative, confusion.false_negative
    total = tp + fp + tn + fn
    agreed = _divide(tp + tn, total)
    by_chance = _divide((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp), total**2)
    return {
        "sensitivity": _divide(tp, tp + fn),
        "specificity": _divide(tn, tn + fp),
        "ppv": _divide(tp, tp + fp),
        "npv": _divide(tn, tn + fn),
        "accuracy": agreed,
        "f1": _divide(2 * tp, 2 * tp + fp + fn),
        "kappa": _divide(agreed - by_chance, 1.0 - by_chance),
    }


def predictive_values(
    sensitivity: np.ndarray, specificity: np.ndarray, *, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """PPV and NPV at a stated prevalence (Bayes' theorem): those of the clinic, not of the study's mix.

    Raises:
        ValueError: the prevalence is not within 0..1.
    """
    if not 0.0 <= prevalence <= 1.0:
        raise ValueError(f"a prevalence is within 0..1, not {prevalence}")
    ill, well = prevalence, 1.0 - prevalence
    called = sensitivity * ill + (1.0 - specificity) * well
    not_called = specificity * well + (1.0 - sensitivity) * ill
    return _divide(sensitivity * ill, called), _divide(specificity * well, not_called)


def _called(counts: np.ndarray) -> np.ndarray:
    """Rows at or above each edge: [..., b + 1], from all of them to none."""
    from_above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([from_above, np.zeros_like(counts[..., :1])], axis=-1)


def _at_all_edges(sums: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity at each edge."""
    positive, negative = _called(sums["positive"]), _called(sums["negative"])
    all_negative = negative[..., :1]
    return _divide(positive, positive[..., :1]), _divide(all_negative - negative, all_negative)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.broadcast_arrays(np.asarray(above, dtype=np.float64), below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
