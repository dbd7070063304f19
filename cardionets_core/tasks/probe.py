"""The phenotype probe: how much of the 82 CMR phenotypes a linear map reads from the frozen ECG feature.

A closed-form task. Sites send Gram sums; the server solves one ridge regression for all, which equals the one
on pooled rows. Measured on the test split, with patient-clustered bootstrap replicates.

Legend: R rows, D feature's width, K phenotypes, M replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
from torch import nn

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation.small_groups import without_small_columns
from cardionets_core.privacy.counts import DIVISOR, Counts
from cardionets_core.tasks.base import ClosedFormTask, Modules, Scalar, SiteView, Sums, count_sums
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.phenotype_sums import (
    PHENOTYPE_COUNTS,
    phenotype_metrics,
    phenotype_replicates,
    phenotype_sums,
    phenotype_targets,
)
from cardionets_core.tasks.ridge import gram_sums, solve_ridge

FITTED_SPLITS: tuple[Split, Split] = ("train", "validation")


class Probe(ClosedFormTask):
    """Ridge regression from sums.

    Options:
        fallback_penalty: relative ridge where no site has validation rows.
        bootstrap_replicates: M.
    """

    name = "probe"
    trains = ("phenotype_probe",)
    reads = ("ecg_encoder",)
    needs = frozenset({"ecg", "phenotypes"})
    decomposes = False
    primary = "r2_mean"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {"fallback_penalty": 0.1, "bootstrap_replicates": 1000}
    counts: ClassVar[Counts] = {"*/n": DIVISOR, "*/nj": DIVISOR, **PHENOTYPE_COUNTS}

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        if self._number("fallback_penalty") <= 0 or self._number("bootstrap_replicates") < 1:
            raise ConfigError(
                "options of the probe are positive", where="study: phases: options of task probe"
            )

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """Gram sums, named ``train/...`` and ``validation/...``; see ``gram_sums``."""
        found: Sums = {}
        for split in FITTED_SPLITS:
            rows = site.rows(self.needs, split)
            features, targets = self._features(modules, site, rows)
            targets = without_small_columns(
                targets, patient_R=site.cohort.row_patient[rows], minimum=site.smallest_cell
            )
            for name, value in gram_sums(features, targets).items():
                found[f"{split}/{name}"] = value
        return found

    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``weight`` [K, D] and ``bias`` [K]; both zero for a column with fewer than 10 training values."""
        train, validation = (
            {
                name.removeprefix(f"{split}/"): value
                for name, value in sums.items()
                if name.startswith(f"{split}/")
            }
            for split in FITTED_SPLITS
        )
        solution = solve_ridge(train, validation, fallback_penalty=self._number("fallback_penalty"))
        return {
            "weight": np.ascontiguousarray(solution.weight_KD, dtype=np.float32),
            "bias": np.ascontiguousarray(solution.bias_K, dtype=np.float32),
        }

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums of ``phenotype_sums``.

        A column that was not trained (its weights and bias are zero) counts as missing everywhere.
        """
        rows = site.rows(self.needs, split)
        features, targets = self._features(modules, site, rows)
        probe = cast(nn.Linear, modules["phenotype_probe"])
        weight_KD = probe.weight.detach().double().cpu().numpy()
        bias_K = probe.bias.detach().double().cpu().numpy()
        trained_K = weight_KD.any(axis=1) | (bias_K != 0)
        return {
            **count_sums(site.cohort, rows),
            **phenotype_sums(
                np.where(trained_K, targets, np.nan),
                features @ weight_KD.T + bias_K,
                cohort=site.cohort,
                rows=rows,
                replicates=int(self.options["bootstrap_replicates"]),
                seed=seed,
                smallest_cell=site.smallest_cell,
                draws=site.draws,
            ),
        }

    def replicates(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Task.replicates``."""
        return phenotype_replicates(sums)

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics of ``phenotype_metrics``, by column, by sex and by age band."""
        return {
            "n_rows": float(sums["n_rows"][0]),
            "n_patients": float(sums["n_patients"][0]),
            **phenotype_metrics(sums),
        }

    def _features(self, modules: Modules, site: SiteView, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features float64 [R, D] and targets float64 [R, K]; R = 0 keeps D and K."""
        probe = cast(nn.Linear, modules["phenotype_probe"])
        targets = phenotype_targets(site, rows, columns=probe.out_features)
        if not len(rows):
            return np.zeros((0, probe.in_features)), targets
        features = ecg_features(modules["ecg_encoder"], site, rows)
        return features.numpy(), targets
