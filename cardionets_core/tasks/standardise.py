"""The scaler of the phenotypes: one mean and one SD a column over all sites, from sums (SCIENCE 5.5).

A closed-form task, before any that trains on standardised phenotypes. It counts rows as their loss sees
them: every training ECG with any value, so a visit with two ECGs counts twice.

Legend: K phenotypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np

from cardionets_core.data.cohort import Split
from cardionets_core.data.phenotypes import FIRST_FIELD
from cardionets_core.evaluation.small_groups import without_small_columns
from cardionets_core.models.solved import PhenotypeStandardiser
from cardionets_core.privacy.counts import DIVISOR, Counts
from cardionets_core.tasks.base import ClosedFormTask, Modules, SiteView, Sums, count_sums
from cardionets_core.tasks.phenotype_sums import phenotype_targets
from cardionets_core.tasks.scaler import Scaler, scaler_sums, solve_scaler

# A public constant for all columns. None is needed near their means: these lie within a hundred SDs of 0,
# which costs at most 1e4 of float64's 1e16.
SHIFT = 0.0
FEWEST_VALUES = 10


class Standardise(ClosedFormTask):
    """Mean and SD of each phenotype."""

    name = "standardise"
    trains = ("phenotype_standardiser",)
    needs = frozenset({"ecg", "phenotypes"})
    decomposes = False
    primary = "columns"
    higher_is_better = True
    counts: ClassVar[Counts] = {"nj": DIVISOR}

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """``nj``, ``Sy``, ``Syy`` [K] of the training rows; NaN takes no part."""
        return scaler_sums(_targets(modules, site, "train"), shift=SHIFT)

    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``mean`` and ``deviation`` [K]; SD 1 where there are under two values or the SD is under 1e-6."""
        found = solve_scaler(sums, shift=SHIFT)
        return {"mean": found.mean_K.astype(np.float32), "deviation": found.sd_K.astype(np.float32)}

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """``nj``, ``Sy``, ``Syy`` [K] of the standardised values of a split."""
        targets = _targets(modules, site, split)
        counts = count_sums(site.cohort, site.rows(self.needs, split))
        scaler = Scaler(
            n_K=np.zeros(targets.shape[1]),
            mean_K=_numbers(modules).mean.detach().double().cpu().numpy(),
            sd_K=_numbers(modules).deviation.detach().double().cpu().numpy(),
        )
        return {**counts, **scaler_sums(scaler.standardise(targets))}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """``columns`` with at least 10 values, and their mean and SD in units of the training rows' SD.

        ``mean/24100`` far from 0 or ``sd/24100`` far from 1 says that the site's values are not those of the
        consortium: another population, unit or method.
        """
        counted = np.flatnonzero(sums["nj"] >= FEWEST_VALUES)
        found = {
            "n_rows": float(sums["n_rows"][0]),
            "n_patients": float(sums["n_patients"][0]),
        }
        if not len(counted):
            return found
        found["columns"] = float(len(counted))
        mean_K = sums["Sy"][counted] / sums["nj"][counted]
        variance_K = sums["Syy"][counted] / sums["nj"][counted] - mean_K**2
        for column, mean, variance in zip(counted, mean_K, variance_K, strict=True):
            found[f"mean/{FIRST_FIELD + int(column)}"] = float(mean)
            found[f"sd/{FIRST_FIELD + int(column)}"] = float(np.sqrt(max(variance, 0.0)))
        return found


def _numbers(modules: Modules) -> PhenotypeStandardiser:
    return cast(PhenotypeStandardiser, modules["phenotype_standardiser"])


def _targets(modules: Modules, site: SiteView, split: Split) -> np.ndarray:
    rows = site.rows(Standardise.needs, split)
    targets = phenotype_targets(site, rows, columns=len(_numbers(modules).mean))
    return without_small_columns(targets, patient_R=site.cohort.row_patient[rows], minimum=site.smallest_cell)
