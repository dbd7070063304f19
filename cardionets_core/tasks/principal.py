"""Principal components of a frozen feature over all sites, from sums (SCIENCE 5.2f and 5.5).

Sites send n, the sum and the sum of products; the server solves once and all use the same axes. The axes give
the positions phi of the weighted contrastive loss, their scale sigma, and the fixed targets of the cosine
loss.

Legend: R rows, D feature's width, P components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cardionets_core.errors import TooFewPatientsError

MOST_COMPONENTS = 128
SIGMA_SHARE = 0.25
# Below this share of the raw second moment an eigenvalue is rounding noise, and its axis is arbitrary.
RELATIVE_FLOOR = 1e-12
# Loadings closer than this count as equal when the sign is fixed, so that rounding does not choose it.
TIED = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Axes of largest variance, the same for all sites.

    Attributes:
        n: rows behind the sums.
        mean_D: mean feature.
        components_PD: orthonormal axes by falling variance, the loading of largest magnitude positive. An
            axis along which the feature does not vary is a row of zeros.
        eigenvalues_D: all eigenvalues of the covariance (divisor n - 1), falling, none below 0.
    """

    n: float
    mean_D: np.ndarray
    components_PD: np.ndarray
    eigenvalues_D: np.ndarray

    @property
    def bias_P(self) -> np.ndarray:  # noqa: N802 - a shape suffix
        """What to add to ``feature @ components_PD.T`` so that the projection is centred."""
        return -self.components_PD @ self.mean_D

    @property
    def sigma_squared(self) -> float:
        """``.25 * 2 * sum_{j <= min(128, D/2)} lambda_j``, a quarter of the mean squared distance of phi.

        Twice the trace is exactly the mean of ``||x_i - x_j||^2`` over all pairs i != j of all sites.
        """
        return float(SIGMA_SHARE * 2.0 * self.eigenvalues_D[: default_components(len(self.mean_D))].sum())

    def project(self, feature_RD: np.ndarray) -> np.ndarray:
        """Centred positions phi, float64 ``[R, P]``."""
        return (np.asarray(feature_RD, dtype=np.float64) - self.mean_D) @ self.components_PD.T


def default_components(width: int) -> int:
    """``min(128, D/2)``, at least 1."""
    return max(1, min(MOST_COMPONENTS, width // 2))


def feature_sums(feature_RD: np.ndarray, *, shift: float | np.ndarray = 0.0) -> dict[str, np.ndarray]:
    """Sums over rows; they may be added over sites.

    Args:
        feature_RD: finite; R = 0 is legal.
        shift: a public constant, a number or [D], taken off first. A constant near the mean saves digits.

    Returns:
        float64: ``n`` (1,), ``Sx`` [D], ``Sxx`` [D, D].
    """
    x = np.asarray(feature_RD, dtype=np.float64) - shift
    return {"n": np.array([float(len(x))]), "Sx": x.sum(axis=0), "Sxx": x.T @ x}


def solve_principal(
    sums: Mapping[str, np.ndarray], *, shift: float | np.ndarray = 0.0, components: int | None = None
) -> Principal:
    """Axes from (added) ``feature_sums``.

    Args:
        sums: of all sites.
        shift: the constant with which the sums were made.
        components: P, at most D; ``default_components`` where None.

    Raises:
        TooFewPatientsError: fewer than two rows.
        ValueError: more components than features.
    """
    n = float(sums["n"][0])
    width = len(sums["Sx"])
    kept = default_components(width) if components is None else components
    if not 1 <= kept <= width:
        raise ValueError(f"{kept} components of {width} features")
    if n < 2:
        raise TooFewPatientsError(
            f"principal components need two rows or more, not {n:g}",
            where="statistics over sites: principal components",
            remedy="let sites with paired recordings take part",
        )
    mean_D = sums["Sx"] / n
    second_DD = (sums["Sxx"] + sums["Sxx"].T) / 2.0
    covariance_DD = (second_DD - n * np.outer(mean_D, mean_D)) / (n - 1.0)
    rising_D, vectors_DD = np.linalg.eigh(covariance_DD)
    values_D, axes_DD = rising_D[::-1], vectors_DD.T[::-1]
    floor = RELATIVE_FLOOR * max(float(values_D[0]), float(np.diagonal(second_DD).max()) / n)
    alive_D = values_D > floor
    fixed_PD = _fix_signs(axes_DD[:kept]) * alive_D[:kept, None]
    return Principal(
        n=n,
        mean_D=mean_D + shift,
        components_PD=np.ascontiguousarray(fixed_PD),
        eigenvalues_D=np.where(alive_D, values_D, 0.0),
    )


def _fix_signs(axes_PD: np.ndarray) -> np.ndarray:
    """The loading of largest magnitude becomes positive; of tied ones the first."""
    size_PD = np.abs(axes_PD)
    largest_P = np.argmax(size_PD >= (1.0 - TIED) * size_PD.max(axis=1, keepdims=True), axis=1)
    chosen_P1 = np.take_along_axis(axes_PD, largest_P[:, None], axis=1)
    return axes_PD * np.where(chosen_P1 < 0.0, -1.0, 1.0)
