"""AUROC and AUPRC over sites from class-wise score histograms (SCIENCE section 7).

A site sends how many positive and how many negative rows fall into each of 2,048 bins of the score; added
over sites, these are the histograms of the pooled rows. Scores inside a bin count as tied; what that can cost
is bounded by ``auroc_bound`` and ``auprc_bounds`` from the same histograms. Scores are logits; the metrics
here depend on their order only.

Legend: R rows, K columns (diseases), b bins; replicates M stand in front where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import digamma

BINS = 2048
LOW, HIGH = -12.0, 12.0
# 24 / 2048 = 3 / 256, so every edge is exact in float32.
WIDTH = (HIGH - LOW) / BINS
# Lower edge of each bin, and the end. The outer bins hold whatever lies beyond them.
EDGES = np.concatenate([[-np.inf], LOW + WIDTH * np.arange(1, BINS), [np.inf]])
CENTRES = LOW + WIDTH * (np.arange(BINS) + 0.5)


def bin_of(logit: np.ndarray) -> np.ndarray:
    """Index of the bin: bin i holds ``EDGES[i] <= logit < EDGES[i + 1]``; -inf and inf go to the outer bins.

    Raises:
        ValueError: a logit is NaN.
    """
    if np.isnan(logit).any():
        raise ValueError("a score is NaN: it has no place among the others")
    return np.searchsorted(EDGES[1:-1], logit, side="right")


def score_histograms(logit_RK: np.ndarray, label_RK: np.ndarray) -> dict[str, np.ndarray]:
    """Counts of the positives and the negatives in each bin.

    Args:
        logit_RK: scores; may be anything where the label is NaN.
        label_RK: 1, 0, or NaN for not assessed.

    Returns:
        ``positive`` and ``negative``, float64 [K, 2048].

    Raises:
        ValueError: a label is neither 0, 1 nor NaN, or the score of an assessed row is NaN.
    """
    refuse_strange_labels(label_RK)
    columns = label_RK.shape[1]
    found = {}
    for name, value in (("positive", 1.0), ("negative", 0.0)):
        row, column = np.nonzero(label_RK == value)
        place = column * BINS + bin_of(logit_RK[row, column])
        counts = np.bincount(place, minlength=columns * BINS)
        found[name] = counts.reshape(columns, BINS).astype(np.float64)
    return found


def refuse_strange_labels(label_RK: np.ndarray) -> None:
    """Raise a ValueError where a label is neither 0, 1 nor NaN."""
    if not (np.isnan(label_RK) | (label_RK == 0) | (label_RK == 1)).all():
        raise ValueError("a label is 1, 0 or NaN")


def auroc(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``sum_b n+_b (N-_{<b} + n-_b/2) / (n+ n-)``; NaN without positives or without negatives. [..., K]."""
    positive, negative = sums["positive"], sums["negative"]
    below = np.cumsum(negative, axis=-1) - negative
    return _divide((positive * (below + negative / 2.0)).sum(axis=-1), _pairs(sums))


def auroc_bound(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """What binning may have cost the AUROC at most, either way: ``sum_b n+_b n-_b / (2 n+ n-)``. [..., K]."""
    return _divide((sums["positive"] * sums["negative"]).sum(axis=-1) / 2.0, _pairs(sums))


def auprc(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Average precision ``sum_b (n+_b / n+) precision_b`` of the binned scores, highest bin first. [..., K].

    ``precision_b`` is that of calling all rows of bin b and above positive. It is not interpolated. NaN
    without positives or without negatives.
    """
    positive, negative = sums["positive"], sums["negative"]
    called_positive, called = _from_above(positive), _from_above(positive + negative)
    precision = np.divide(called_positive, called, out=np.zeros_like(called), where=called > 0)
    found = _divide((positive * precision).sum(axis=-1), positive.sum(axis=-1))
    return np.where(_pairs(sums) > 0, found, np.nan)


def auprc_bounds(sums: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest average precision that the unbinned scores can have, given the histograms. [..., K].

    In a bin with p positives and q negatives below T positives and F negatives of higher bins, the precision
    at the j-th positive lies between ``(T + j) / (T + j + F + q)`` (all negatives of the bin above it) and
    ``(T + p) / (T + p + F)`` (all positives of the bin tied above its negatives). ``auprc`` lies between.
    """
    positive, negative = sums["positive"], sums["negative"]
    above = _from_above(positive) - positive
    false_at_best = _from_above(negative) - negative
    false_at_worst = _from_above(negative)
    reached = above + positive
    # sum_{j=1..p} (T + j) / (T + j + F) = p - F sum_j 1 / (T + j + F), a difference of digammas.
    start = above + false_at_worst + 1.0
    lowest = positive - false_at_worst * (digamma(start + positive) - digamma(start))
    called = reached + false_at_best
    highest = positive * np.divide(reached, called, out=np.zeros_like(called), where=called > 0)
    defined = _pairs(sums) > 0
    total = positive.sum(axis=-1)
    low, high = _divide(lowest.sum(axis=-1), total), _divide(highest.sum(axis=-1), total)
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)


def _from_above(counts: np.ndarray) -> np.ndarray:
    """Counts of each bin and all higher ones."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]


def _pairs(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    return sums["positive"].sum(axis=-1) * sums["negative"].sum(axis=-1)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
