"""Patient-clustered bootstrap of score histograms, coarse enough to be sent.

The replicates' histograms have 128 bins, each the union of 16 of the 2,048. For 1,000 replicates of five
diseases they take 10 MB (``M * K * 2 * 128 * 8`` bytes). A coarse bin hides the order of its scores, in the
replicates as in the whole data; ``replicate_interval`` therefore takes from the replicates only how they lie
around the coarse value of the whole data, and places that around the fine value. What is left is the
difference of the two errors, each of which is at most ``auroc_bound`` of the coarse histograms.

Legend: R rows, K columns, Q patients, M replicates, b bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.sparse import csr_array

from cardionets_core.evaluation.bootstrap import percentile_interval, replicate_weights
from cardionets_core.evaluation.histograms import BINS, bin_of, refuse_strange_labels

REPLICATE_BINS = 128

Metric = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def coarse_histograms(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same counts in 128 bins: ``positive`` and ``negative`` [..., 128]. Other names are left out."""
    shape = (REPLICATE_BINS, BINS // REPLICATE_BINS)
    return {
        name: sums[name].reshape(*sums[name].shape[:-1], *shape).sum(axis=-1)
        for name in ("positive", "negative")
    }


def bootstrap_histograms(
    logit_RK: np.ndarray,
    label_RK: np.ndarray,
    *,
    patient_R: np.ndarray,
    replicates: int,
    seed: int,
    site: str,
) -> dict[str, np.ndarray]:
    """Coarse histograms of each replicate; the draws are those of ``bootstrap_sums`` for the same patients.

    Args:
        logit_RK: scores.
        label_RK: 1, 0, or NaN for not assessed.
        patient_R: int [R], the person of each row; all rows of a person are drawn together.
        replicates: M.
        seed: shared by the sites.
        site: name of the site.

    Returns:
        ``positive`` and ``negative``, float64 [M, K, 128]; zeros without rows.

    Raises:
        ValueError: as ``score_histograms``.
    """
    refuse_strange_labels(label_RK)
    columns = label_RK.shape[1]
    width = columns * 2 * REPLICATE_BINS
    found_MC = np.zeros((replicates, width))
    people, inverse = np.unique(patient_R, return_inverse=True)
    if len(people):
        row, column = np.nonzero(~np.isnan(label_RK))
        place = (column * 2 + (label_RK[row, column] == 0)) * REPLICATE_BINS
        place = place + bin_of(logit_RK[row, column]) // (BINS // REPLICATE_BINS)
        # Sparse: a person fills one bin a disease and row, not 256.
        per_bin_CQ = csr_array((np.ones(len(row)), (place, inverse[row])), shape=(width, len(people)))
        begin = 0
        for weights in replicate_weights(len(people), replicates=replicates, seed=seed, site=site):
            found_MC[begin : begin + len(weights)] = (per_bin_CQ @ weights.T).T
            begin += len(weights)
    found = found_MC.reshape(replicates, columns, 2, REPLICATE_BINS)
    return {"positive": found[:, :, 0], "negative": found[:, :, 1]}


def replicate_interval(
    sums: Mapping[str, np.ndarray],
    replicates: Mapping[str, np.ndarray],
    *,
    metric: Metric,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap interval of a metric of histograms, such as ``auroc`` or ``auprc``.

    ``metric(sums) + percentiles of (metric(replicates) - metric(coarse sums))``, cut to 0..1.

    Args:
        sums: fine histograms of the whole data, [K, 2048].
        replicates: coarse histograms [M, K, 128], of the same rows.
        metric: histograms [..., K, b] to values [..., K] in 0..1.
        level: of the interval.

    Returns:
        Lower and upper ends, [K]; NaN where the metric is undefined.
    """
    fine_K = metric(sums)
    spread_MK = metric(replicates) - metric(coarse_histograms(sums))
    ends = [percentile_interval(spread_MK[:, column], level=level) for column in range(len(fine_K))]
    low_K, high_K = np.array(ends).reshape(-1, 2).T
    return np.clip(fine_K + low_K, 0.0, 1.0), np.clip(fine_K + high_K, 0.0, 1.0)
