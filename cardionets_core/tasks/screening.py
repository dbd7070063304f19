"""The screening head Hk and Hs: five diseases and the subtype of cardiomyopathy, from the ECG (SCIENCE 4).

The log odds of the global prevalence are added to each logit, in training and in evaluation: the head learns
what the ECG says beyond how common a disease is, and a site with many ill people teaches no other disease.

Legend: B rows, R rows of a split, D diseases, C subtypes, L = D + C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.data.records import DISEASES, LABELS
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation.small_groups import without_small_classes, without_small_subtypes
from cardionets_core.losses import disease_loss, subtype_loss
from cardionets_core.privacy.counts import Counts
from cardionets_core.tasks.base import Modules, Scalar, SiteView, Sums, TaskLoss, count_sums
from cardionets_core.tasks.binary_sums import DISEASE_COUNTS, auroc_replicates, disease_metrics, disease_sums
from cardionets_core.tasks.head_task import HeadTask, apply_head
from cardionets_core.tasks.subtype_scores import SUBTYPE_COUNTS, subtype_metrics, subtype_score_sums


class Screening(HeadTask):
    """``L_i = 1/D (sum_d m_id BCE_id + w s_i CE_i)``, s_i = 1 where the subtype is known; D is constant.

    Options:
        subtype_weight: w.
    """

    name = "screening"
    head = "screening_head"
    solved = "screening_prior"
    trains = ("screening_head",)
    reads = ("ecg_encoder", "screening_prior")
    needs = frozenset({"ecg", "labels"})
    primary = "auroc_mean"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {**HeadTask.defaults, "subtype_weight": 1.0}
    counts: ClassVar[Counts] = {**DISEASE_COUNTS, **SUBTYPE_COUNTS}

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        if self._number("subtype_weight") < 0:
            raise ConfigError("subtype_weight is 0 or more", where="study: phases: options of task screening")

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Masked cross-entropies on adjusted logits; a label that is not known has no gradient."""
        logit_BL = modules["screening_head"](self.feature(modules, batch, state)).float()
        logit_BL = modules["screening_prior"](logit_BL)
        assert batch.labels_BD is not None  # the task needs them
        count = len(DISEASES)
        disease_B = disease_loss(logit_BL[:, :count], batch.labels_BD[:, :count])
        subtype_B = subtype_loss(logit_BL[:, count:], batch.labels_BD[:, count:])
        per_sample_B = disease_B + self._number("subtype_weight") / count * subtype_B
        parts = {"diseases": float(disease_B.detach().mean()), "subtype": float(subtype_B.detach().mean())}
        return TaskLoss(total=per_sample_B.mean(), per_sample_B=per_sample_B, parts=parts)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums of ``disease_sums`` and ``subtype_score_sums``, from the mean logits over windows."""
        rows = site.rows(self.needs, split)
        label_RL = known_labels(site, rows)
        logit_RL = np.zeros((0, len(LABELS)))
        if len(rows):
            head_RL = self.evaluated(modules, site, split=split).to(site.device)
            logit_RL = apply_head(modules["screening_prior"], head_RL).numpy()
        count = len(DISEASES)
        return {
            **count_sums(site.cohort, rows),
            **disease_sums(
                logit_RL[:, :count],
                label_RL[:, :count],
                cohort=site.cohort,
                rows=rows,
                replicates=int(self.options["bootstrap_replicates"]),
                seed=seed,
                smallest_cell=site.smallest_cell,
                draws=site.draws,
            ),
            **subtype_score_sums(logit_RL[:, count:], label_RL[:, count:]),
        }

    def replicates(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Task.replicates``."""
        return auroc_replicates(sums)

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics of ``disease_metrics`` and ``subtype_metrics``.

        Sensitivity and specificity are those of ``calibrate``, whose thresholds come from validation rows.
        """
        return {
            "n_rows": float(sums["n_rows"][0]),
            "n_patients": float(sums["n_patients"][0]),
            **disease_metrics(sums),
            **subtype_metrics(sums),
        }


def known_labels(site: SiteView, rows: np.ndarray) -> np.ndarray:
    """Labels of some rows, float64 [R, L]; NaN for diseases with few ill or well, and for rare subtypes."""
    label_RL = site.cohort.diseases[rows].astype(np.float64)
    whose: dict[str, Any] = {"patient_R": site.cohort.row_patient[rows], "minimum": site.smallest_cell}
    diseases_RD = without_small_classes(label_RL[:, : len(DISEASES)], **whose)
    return np.concatenate(
        [diseases_RD, without_small_subtypes(label_RL[:, len(DISEASES) :], **whose)], axis=1
    )
