"""Mean and SD of each column over all sites, from sums (SCIENCE 5.5).

One scaler serves all sites and all splits. It is fitted on training rows; the task stores it with the model.

Legend: R rows, K columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MINIMUM_COUNT = 2
SMALLEST_SD = 1e-6
# Below this share of the raw second moment a variance is rounding noise, not variance.
RELATIVE_FLOOR = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaler:
    """What makes columns comparable.

    Attributes:
        n_K: values behind each column.
        mean_K: 0 for a column without values.
        sd_K: population SD (divisor n); 1 for a column with fewer than two values or an SD below 1e-6.
    """

    n_K: np.ndarray
    mean_K: np.ndarray
    sd_K: np.ndarray

    def standardise(self, value_RK: np.ndarray) -> np.ndarray:
        """``(value - mean) / sd``, float64; NaN stays NaN."""
        return (np.asarray(value_RK, dtype=np.float64) - self.mean_K) / self.sd_K

    def restore(self, standard_RK: np.ndarray) -> np.ndarray:
        """Inverse of ``standardise``: back to the columns' units."""
        return np.asarray(standard_RK, dtype=np.float64) * self.sd_K + self.mean_K


def scaler_sums(value_RK: np.ndarray, *, shift: float | np.ndarray = 0.0) -> dict[str, np.ndarray]:
    """Sums of the present values; they may be added over sites.

    Args:
        value_RK: NaN where missing; R = 0 is legal.
        shift: a public constant, a number or [K], taken off first. A constant near the mean saves digits.

    Returns:
        float64 [K]: ``nj``, ``Sy``, ``Syy``.
    """
    present_RK = np.isfinite(value_RK)
    y = np.where(present_RK, np.asarray(value_RK, dtype=np.float64) - shift, 0.0)
    return {
        "nj": present_RK.sum(axis=0).astype(np.float64),
        "Sy": y.sum(axis=0),
        "Syy": (y**2).sum(axis=0),
    }


def solve_scaler(sums: Mapping[str, np.ndarray], *, shift: float | np.ndarray = 0.0) -> Scaler:
    """The scaler of (added) ``scaler_sums`` that were made with the same shift."""
    n_K = np.asarray(sums["nj"], dtype=np.float64)
    safe_K = np.maximum(n_K, 1.0)
    shifted_mean_K = sums["Sy"] / safe_K
    second_K = sums["Syy"] / safe_K
    variance_K = second_K - shifted_mean_K**2
    variance_K = np.where(variance_K > RELATIVE_FLOOR * second_K, variance_K, 0.0)
    sd_K = np.sqrt(variance_K)
    return Scaler(
        n_K=n_K,
        mean_K=np.where(n_K > 0, shifted_mean_K + shift, 0.0),
        sd_K=np.where((n_K < MINIMUM_COUNT) | (sd_K < SMALLEST_SD), 1.0, sd_K),
    )
