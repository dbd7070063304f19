"""Phenotypes read from a cine by a site's own regressor, to ask how much of them a drawn cine shows.

A ridge regression from the frozen CMR feature, fitted on the site's training cines, with the penalty of its
validation cines. It stays at the site. What it reads from a drawn cine is an association learned from data,
not a measurement: volumes cannot be read off a drawn cine.

Legend: R rows, D feature's width, K phenotypes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cardionets_core.data.cohort import Split
from cardionets_core.models.presets import PHENOTYPES
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.features import cmr_features
from cardionets_core.tasks.phenotype_sums import phenotype_targets
from cardionets_core.tasks.ridge import gram_sums, solve_ridge

MEASURED = frozenset({"cine", "phenotypes"})
FALLBACK_PENALTY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CmrRegressor:
    """A linear map from the CMR feature to the phenotypes.

    Attributes:
        weight_KD: float64.
        bias_K: float64.
        trained_K: bool, columns with at least 10 training values that vary.
    """

    weight_KD: np.ndarray
    bias_K: np.ndarray
    trained_K: np.ndarray

    def read(self, feature_RD: np.ndarray) -> np.ndarray:
        """Phenotypes in the unit of each field, float64 ``[R, K]``; zero in a column that was not trained."""
        return feature_RD @ self.weight_KD.T + self.bias_K

    def known(self, target_RK: np.ndarray) -> np.ndarray:
        """The targets, NaN in every column that was not trained."""
        return np.where(self.trained_K, target_RK, np.nan)


def fit_cmr_regressor(modules: Modules, site: SiteView, *, width: int) -> CmrRegressor:
    """Fit on the site's training cines with phenotypes; without any, no column is trained.

    Args:
        modules: with a frozen ``cmr_encoder``, on the site's device.
        site: the site.
        width: D.
    """
    found = {split: _sums(modules, site, split, width) for split in ("train", "validation")}
    solved = solve_ridge(found["train"], found["validation"], fallback_penalty=FALLBACK_PENALTY)
    return CmrRegressor(weight_KD=solved.weight_KD, bias_K=solved.bias_K, trained_K=solved.trained_K)


def _sums(modules: Modules, site: SiteView, split: Split, width: int) -> dict[str, np.ndarray]:
    rows = site.rows(MEASURED, split)
    target_RK = phenotype_targets(site, rows, columns=PHENOTYPES)
    if not len(rows):
        return gram_sums(np.zeros((0, width)), target_RK)

    def make() -> dict[str, torch.Tensor]:
        with torch.autocast(site.device.type, enabled=False):
            return {"feature_RD": cmr_features(modules["cmr_encoder"], site, rows)}

    kept = site.kept.of(
        "cmr-features", modules, ("cmr_encoder",), make, settings=f"{split} cines with phenotypes"
    )
    return gram_sums(kept["feature_RD"].double().numpy(), target_RK)
