"""The phenotype probe: how much of the 82 CMR phenotypes a linear map reads from the frozen ECG feature.

A closed-form task. Sites send Gram sums; the server solves one ridge regression for all, which equals the one
on pooled rows. Measured on the test split, with patient-clustered bootstrap replicates.

Legend: R rows, D feature's width, K phenotypes, M replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from cardionets_core.data.cohort import Cohort, Split
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError, SourceInvalidError
from cardionets_core.evaluation.bootstrap import bootstrap_sums, percentile_interval
from cardionets_core.evaluation.regression import (
    mean_absolute_error,
    measured_columns,
    pearson,
    r_squared,
    root_mean_square_error,
    row_terms,
)
from cardionets_core.tasks.base import ClosedFormTask, Modules, Scalar, Sums, count_sums
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.ridge import gram_sums, solve_ridge

FIRST_FIELD = 24100
REPLICATED: tuple[str, ...] = ("n", "Sy", "Syy", "See")
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

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        if self._number("fallback_penalty") <= 0 or self._number("bootstrap_replicates") < 1:
            raise ConfigError(
                "options of the probe are positive", where="study: phases: options of task probe"
            )

    def sums(self, modules: Modules, cohort: Cohort, *, shape: InputShape, device: torch.device) -> Sums:
        """Gram sums, named ``train/...`` and ``validation/...``; see ``gram_sums``."""
        found: Sums = {}
        for split in FITTED_SPLITS:
            rows = cohort.rows(self.needs, split, shape)
            features, targets = self._features(modules, cohort, rows, shape=shape, device=device)
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

    def metric_sums(
        self,
        modules: Modules,
        cohort: Cohort,
        *,
        split: Split,
        shape: InputShape,
        device: torch.device,
        seed: int,
    ) -> Sums:
        """Regression sums [K], and ``boot_*`` sums [M, K] of n, Sy, Syy, See.

        A column that was not trained (its weights and bias are zero) counts as missing everywhere.
        """
        rows = cohort.rows(self.needs, split, shape)
        features, targets = self._features(modules, cohort, rows, shape=shape, device=device)
        probe = cast(nn.Linear, modules["phenotype_probe"])
        weight_KD = probe.weight.detach().double().cpu().numpy()
        bias_K = probe.bias.detach().double().cpu().numpy()
        trained_K = weight_KD.any(axis=1) | (bias_K != 0)
        terms = row_terms(np.where(trained_K, targets, np.nan), features @ weight_KD.T + bias_K)
        replicated = bootstrap_sums(
            {name: terms[name] for name in REPLICATED},
            cohort.row_patient[rows],
            replicates=int(self.options["bootstrap_replicates"]),
            seed=seed,
            site=cohort.site,
        )
        return {
            **count_sums(cohort, rows),
            **{name: value.sum(axis=0) for name, value in terms.items()},
            **{f"boot_{name}": value for name, value in replicated.items()},
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Mean R2 with its 95 % interval, mean r, and R2, r, MAE, RMSE of each column (``r2/24100``, ...).

        Only columns with at least 10 values that vary; an interval is over the same columns.
        """
        columns = np.flatnonzero(measured_columns(sums))
        found = {
            "n_rows": float(sums["n_rows"][0]),
            "n_patients": float(sums["n_patients"][0]),
            "columns": float(len(columns)),
        }
        if not len(columns):
            return found
        by_column = {
            "r2": r_squared(sums),
            "pearson": pearson(sums),
            "mae": mean_absolute_error(sums),
            "rmse": root_mean_square_error(sums),
        }
        found["r2_mean"] = float(by_column["r2"][columns].mean())
        replicates_MK = r_squared({name: sums[f"boot_{name}"] for name in REPLICATED})[:, columns]
        defined_M = np.isfinite(replicates_MK).all(axis=1)
        low, high = percentile_interval(replicates_MK[defined_M].mean(axis=1))
        if np.isfinite([low, high]).all():
            found["r2_mean_low"], found["r2_mean_high"] = low, high
        correlations = by_column["pearson"][columns]
        if np.isfinite(correlations).any():
            found["pearson_mean"] = float(np.nanmean(correlations))
        for name, values in by_column.items():
            for column in columns:
                if np.isfinite(values[column]):
                    found[f"{name}/{FIRST_FIELD + int(column)}"] = float(values[column])
        return found

    def _features(
        self, modules: Modules, cohort: Cohort, rows: np.ndarray, *, shape: InputShape, device: torch.device
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features float64 [R, D] and targets float64 [R, K]; R = 0 keeps D and K."""
        probe = cast(nn.Linear, modules["phenotype_probe"])
        if cohort.phenotypes.shape[1] != probe.out_features:
            raise SourceInvalidError(
                f"{cohort.phenotypes.shape[1]} phenotype columns, but the probe has {probe.out_features}",
                where=f"site {cohort.site}",
                remedy="prepare the cache with this version",
            )
        targets = cohort.phenotypes[rows].astype(np.float64)
        if not len(rows):
            return np.zeros((0, probe.in_features)), targets
        features = ecg_features(modules["ecg_encoder"], cohort, rows, shape=shape, device=device)
        return features.numpy(), targets
