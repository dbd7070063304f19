"""Frechet distance between features of real and generated cines, from moments that may be added over sites.

Features are those of the frozen CMR encoder, not of an ImageNet network. The distance falls with the number
of cases even for equal distributions, so it is compared only between sets of the same size, and reported with
n.

Legend: R rows, D feature's width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import eigh


def feature_moments(feature_RD: np.ndarray) -> dict[str, np.ndarray]:
    """``n`` [1], ``Sf`` [D] and ``Sff`` [D, D] (the sum of ``f f'``), float64."""
    feature = np.asarray(feature_RD, dtype=np.float64)
    return {"n": np.array([float(len(feature))]), "Sf": feature.sum(axis=0), "Sff": feature.T @ feature}


def frechet_distance(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of two sets' moments (Dowson and Landau 1982).

    Covariances divide by n - 1. The trace of the root is the sum of the roots of the eigenvalues of
    ``C1^(1/2) C2 C1^(1/2)``, which is symmetric; it holds also for fewer cases than features.

    Returns:
        At least 0, in squared units of the feature; NaN with fewer than two cases in a set.
    """
    if min(first["n"][0], second["n"][0]) < 2:
        return float("nan")
    mean1, covariance1 = _mean_and_covariance(first)
    mean2, covariance2 = _mean_and_covariance(second)
    values, vectors = eigh(covariance1)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    product = root @ covariance2 @ root
    shared = np.sqrt(np.clip(eigh((product + product.T) / 2.0, eigvals_only=True), 0.0, None)).sum()
    distance = ((mean1 - mean2) ** 2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2.0 * shared
    return max(float(distance), 0.0)


def _mean_and_covariance(moments: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    n = float(moments["n"][0])
    mean = moments["Sf"] / n
    return mean, (moments["Sff"] - n * np.outer(mean, mean)) / (n - 1.0)
