"""Ridge regression of many columns from sums, with missing values and a penalty chosen on validation sums.

Available-case rule: the features' Gram matrix is taken over all rows with any value, scaled by n_j / n for
column j; everything with y_j is taken over the rows where y_j is present. Without missing values this is the
ridge solution exactly.

Legend: R rows, D features, K columns, Q penalties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MINIMUM_COUNT = 10
SMALLEST_SD = 1e-6
# Relative to a mean diagonal of 1: features are standardised and sums divided by their rows.
PENALTIES: tuple[float, ...] = tuple(float(p) for p in np.geomspace(1e-4, 1e3, 29))


def gram_sums(feature_RD: np.ndarray, target_RK: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over the rows that have any value; they may be added over sites.

    Args:
        feature_RD: finite.
        target_RK: NaN where missing.

    Returns:
        float64: ``n`` (1,), ``Sx`` [D], ``Sxx`` [D, D] over all these rows; ``nj``, ``Sy``, ``Syy`` [K],
        ``Sxj``, ``Sxy`` [K, D] over the rows where the column is present.
    """
    present = np.isfinite(target_RK)
    labelled = present.any(axis=1)
    x = np.asarray(feature_RD, dtype=np.float64)[labelled]
    mask = present[labelled].astype(np.float64)
    y = np.where(present, target_RK, 0.0).astype(np.float64)[labelled]
    return {
        "n": np.array([float(labelled.sum())]),
        "Sx": x.sum(axis=0),
        "Sxx": x.T @ x,
        "nj": mask.sum(axis=0),
        "Sy": y.sum(axis=0),
        "Syy": (y**2).sum(axis=0),
        "Sxj": mask.T @ x,
        "Sxy": y.T @ x,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeSolution:
    """A linear map in the units of the columns.

    Attributes:
        weight_KD: float64; zero for a column that was not trained.
        bias_K: float64; zero for a column that was not trained.
        trained_K: bool, columns with at least 10 values that vary.
        penalty: the chosen one.
    """

    weight_KD: np.ndarray
    bias_K: np.ndarray
    trained_K: np.ndarray
    penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moments:
    """Means and central second moments that follow from the sums of one split."""

    count_K: np.ndarray
    feature_mean_KD: np.ndarray
    feature_covariance_DD: np.ndarray
    target_mean_K: np.ndarray
    target_variance_K: np.ndarray
    covariance_KD: np.ndarray


def solve_ridge(
    train: Mapping[str, np.ndarray], validation: Mapping[str, np.ndarray], *, fallback_penalty: float
) -> RidgeSolution:
    """Solve ``(X'X/n + penalty I) w = X'y/n`` on standardised columns, and fold the standardisation back.

    Args:
        train: added ``gram_sums`` of the training rows.
        validation: the same of the validation rows; the penalty of ``PENALTIES`` with the smallest mean
            standardised error over the columns with at least 10 values is taken.
        fallback_penalty: used where no column has 10 validation values.
    """
    known = _moments(train)
    deviation_D = np.sqrt(np.maximum(np.diagonal(known.feature_covariance_DD), 0.0))
    alive_D = deviation_D > SMALLEST_SD * np.maximum(
        1.0, np.abs(train["Sx"]) / max(float(train["n"][0]), 1.0)
    )
    deviation_D = np.where(alive_D, deviation_D, 1.0)
    deviation_K = np.sqrt(known.target_variance_K)
    varies = deviation_K > SMALLEST_SD * np.maximum(1e-3, np.abs(known.target_mean_K))
    trained_K = (known.count_K >= MINIMUM_COUNT) & varies
    deviation_K = np.where(trained_K, deviation_K, 1.0)

    gram_DD = known.feature_covariance_DD / np.outer(deviation_D, deviation_D)
    values_D, vectors_DD = np.linalg.eigh(gram_DD)
    values_D = np.maximum(values_D, 0.0)
    cross_KD = np.where(trained_K[:, None], known.covariance_KD / np.outer(deviation_K, deviation_D), 0.0)
    rotated_KD = cross_KD @ vectors_DD

    def fold(penalty: float) -> tuple[np.ndarray, np.ndarray]:
        standard_KD = ((rotated_KD / (values_D + penalty)) @ vectors_DD.T) * alive_D
        weight_KD = standard_KD * deviation_K[:, None] / deviation_D
        bias_K = known.target_mean_K - (weight_KD * known.feature_mean_KD).sum(axis=1)
        return weight_KD, np.where(trained_K, bias_K, 0.0)

    held = _moments(validation)
    judged_K = trained_K & (held.count_K >= MINIMUM_COUNT)
    penalty = fallback_penalty
    if judged_K.any():
        scores = [float(np.mean((_error(held, *fold(p)) / deviation_K**2)[judged_K])) for p in PENALTIES]
        penalty = PENALTIES[int(np.argmin(scores))]
    weight_KD, bias_K = fold(penalty)
    return RidgeSolution(weight_KD=weight_KD, bias_K=bias_K, trained_K=trained_K, penalty=penalty)


def _moments(sums: Mapping[str, np.ndarray]) -> _Moments:
    n = max(float(sums["n"][0]), 1.0)
    count_K = sums["nj"]
    safe_K = np.maximum(count_K, 1.0)
    feature_mean_D = sums["Sx"] / n
    feature_mean_KD = sums["Sxj"] / safe_K[:, None]
    target_mean_K = sums["Sy"] / safe_K
    return _Moments(
        count_K=count_K,
        feature_mean_KD=feature_mean_KD,
        feature_covariance_DD=sums["Sxx"] / n - np.outer(feature_mean_D, feature_mean_D),
        target_mean_K=target_mean_K,
        target_variance_K=np.maximum(sums["Syy"] / safe_K - target_mean_K**2, 0.0),
        covariance_KD=sums["Sxy"] / safe_K[:, None] - target_mean_K[:, None] * feature_mean_KD,
    )


def _error(held: _Moments, weight_KD: np.ndarray, bias_K: np.ndarray) -> np.ndarray:
    """Mean squared error of each column: variance of the residual plus its mean squared."""
    explained_K = (weight_KD * held.covariance_KD).sum(axis=1)
    spread_K = ((weight_KD @ held.feature_covariance_DD) * weight_KD).sum(axis=1)
    offset_K = held.target_mean_K - bias_K - (weight_KD * held.feature_mean_KD).sum(axis=1)
    return held.target_variance_K - 2.0 * explained_K + spread_K + offset_K**2
