"""The phenotype head Hr: CMR phenotypes from the ECG's feature, on globally standardised values (SCIENCE 4).

Legend: B rows, R rows of a split, K phenotypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch

from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.losses import phenotype_loss
from cardionets_core.models.solved import PhenotypeStandardiser
from cardionets_core.privacy.counts import Counts
from cardionets_core.tasks.base import Modules, SiteView, Sums, TaskLoss, count_sums
from cardionets_core.tasks.head_task import HeadTask
from cardionets_core.tasks.phenotype_sums import (
    PHENOTYPE_COUNTS,
    phenotype_metrics,
    phenotype_replicates,
    phenotype_sums,
    phenotype_targets,
)


class Phenotype(HeadTask):
    """Masked squared error; a missing value has no gradient."""

    name = "phenotype"
    head = "phenotype_head"
    solved = "phenotype_standardiser"
    trains = ("phenotype_head",)
    reads = ("ecg_encoder", "phenotype_standardiser")
    needs = frozenset({"ecg", "phenotypes"})
    primary = "r2_mean"
    higher_is_better = True
    counts: ClassVar[Counts] = PHENOTYPE_COUNTS

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """``L_i = sum_j m_ij (yhat_ij - y_ij)^2 / max(1, sum_j m_ij)``."""
        predicted_BK = modules["phenotype_head"](self.feature(modules, batch, state))
        assert batch.phenotypes_BK is not None  # the task needs them
        target_BK = _standardiser(modules).standardise(batch.phenotypes_BK)
        per_sample_B = phenotype_loss(predicted_BK, target_BK)
        total = per_sample_B.mean()
        return TaskLoss(total=total, per_sample_B=per_sample_B, parts={"mse": float(total.detach())})

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums of ``phenotype_sums``, in the unit of each field.

        A column without variation in the training rows of all sites (its SD stands at exactly 1) counts as
        missing everywhere. With a standardiser that was never solved, all columns count.
        """
        rows = site.rows(self.needs, split)
        standardiser = _standardiser(modules)
        target_RK = phenotype_targets(site, rows, columns=len(standardiser.deviation))
        predicted_RK = np.zeros_like(target_RK)
        if len(rows):
            mean_K, deviation_K = (
                value.detach().double().cpu().numpy() for value in (standardiser.mean, standardiser.deviation)
            )
            predicted_RK = self.evaluated(modules, site, split=split).numpy() * deviation_K + mean_K
            trained_K = deviation_K != 1.0
            target_RK = np.where(trained_K | ~trained_K.any(), target_RK, np.nan)
        return {
            **count_sums(site.cohort, rows),
            **phenotype_sums(
                target_RK,
                predicted_RK,
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


def _standardiser(modules: Modules) -> PhenotypeStandardiser:
    return cast(PhenotypeStandardiser, modules["phenotype_standardiser"])
