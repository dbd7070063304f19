"""Regression metrics from sums (SCIENCE section 7): the pooled metric needs no row of any site.

Sums are float64 and not shifted: a phenotype's mean is less than 100 times its SD, so the cancellation in
``Syy - Sy^2/n`` costs at most 1e4 of float64's 1e16.

Legend: R rows, K columns; replicates stand in front where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SUM_NAMES: tuple[str, ...] = ("n", "Sy", "Syy", "Sp", "Spp", "Syp", "Sabs", "See")
MINIMUM_COUNT = 10
# Below this share of the raw second moment a variance is rounding noise, not variance.
RELATIVE_FLOOR = 1e-12


def row_terms(target_RK: np.ndarray, predicted_RK: np.ndarray) -> dict[str, np.ndarray]:
    """What each row adds to each sum: 0 where the target is NaN. Keys of ``SUM_NAMES``, float64 [R, K]."""
    present = np.isfinite(target_RK)
    target = np.where(present, target_RK, 0.0).astype(np.float64)
    predicted = np.where(present, predicted_RK, 0.0).astype(np.float64)
    error = target - predicted
    return {
        "n": present.astype(np.float64),
        "Sy": target,
        "Syy": target**2,
        "Sp": predicted,
        "Spp": predicted**2,
        "Syp": target * predicted,
        "Sabs": np.abs(error),
        "See": error**2,
    }


def regression_sums(target_RK: np.ndarray, predicted_RK: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over rows, NaN targets left out. Keys of ``SUM_NAMES``, float64 [K]."""
    return {name: terms.sum(axis=0) for name, terms in row_terms(target_RK, predicted_RK).items()}


def r_squared(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``1 - See / (Syy - Sy^2/n)``; NaN where n = 0 or the target does not vary. Shape of ``sums["n"]``."""
    spread = _spread(sums["n"], sums["Sy"], sums["Syy"])
    return 1.0 - _divide(sums["See"], spread)


def pearson(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``(n Syp - Sy Sp) / sqrt((n Syy - Sy^2)(n Spp - Sp^2))``; NaN where either side does not vary."""
    n = sums["n"]
    target = _spread(n, sums["Sy"], sums["Syy"]) * n
    predicted = _spread(n, sums["Sp"], sums["Spp"]) * n
    return _divide(n * sums["Syp"] - sums["Sy"] * sums["Sp"], np.sqrt(target * predicted))


def mean_absolute_error(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``S|e| / n``, in the unit of the column; NaN where n = 0."""
    return _divide(sums["Sabs"], sums["n"])


def root_mean_square_error(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``sqrt(See / n)``, in the unit of the column; NaN where n = 0."""
    return np.sqrt(_divide(sums["See"], sums["n"]))


def measured_columns(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Bool [K]: at least 10 values, and they vary."""
    return (sums["n"] >= MINIMUM_COUNT) & (_spread(sums["n"], sums["Sy"], sums["Syy"]) > 0)


def _spread(n: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``second - first^2/n``, 0 where that is rounding noise."""
    spread = second - np.divide(first**2, n, out=np.zeros_like(second), where=n > 0)
    return np.where(spread > RELATIVE_FLOOR * np.abs(second), spread, 0.0)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
