"""Diseases from an ECG and a cine drawn from it, beside those from the ECG alone (SCIENCE section 4).

A drawn cine adds no information beyond its ECG: what the fusion head gains it gains from what the generator
learned of other people's pairs. Volumes cannot be read off a drawn cine. The screening head is frozen and
measured on the same rows, and every gain is a paired difference to it.

Legend: B rows, R rows of a split, N ECG tokens, M cine tokens, D diseases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.data.records import DISEASES
from cardionets_core.errors import ConfigError
from cardionets_core.losses import disease_loss
from cardionets_core.privacy.counts import Counts, under
from cardionets_core.tasks.base import (
    GradientTask,
    Modules,
    Role,
    Scalar,
    SiteView,
    Sums,
    TaskLoss,
    count_sums,
)
from cardionets_core.tasks.binary_sums import (
    DISEASE_COUNTS,
    auroc_gain,
    auroc_replicates,
    disease_metrics,
    disease_sums,
)
from cardionets_core.tasks.drawing import DRAWING_OPTIONS, check_drawing, drawing_of, preset_of
from cardionets_core.tasks.drawn_tokens import drawn_tokens
from cardionets_core.tasks.ecg_tokens import ecg_tokens
from cardionets_core.tasks.generators import generator_kind
from cardionets_core.tasks.head_task import apply_head
from cardionets_core.tasks.row_features import RowTable, mean_features
from cardionets_core.tasks.site_view import EVALUATION_BATCH

FUSED, ECG_ONLY = "fused/", "ecg_only/"
COUNT = len(DISEASES)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTables:
    """Tokens by row of the cohort.

    Attributes:
        ecg: of the ECG, averaged over leads, ``[N, D]`` a row.
        cmr: of the cine drawn from it, ``[M, D]`` a row.
    """

    ecg: RowTable
    cmr: RowTable


class Fuse(GradientTask):
    """Masked cross-entropy of the fusion head's logits, adjusted by the global prevalence.

    Options:
        guidance, temperature, ar_steps, diffusion_steps, draws: of drawing; 0 is the preset's.
        bootstrap_replicates: of people, in the metrics.
    """

    name = "fuse"
    trains = ("fusion_head",)
    needs = frozenset({"ecg", "labels"})
    batch_keys = frozenset({"labels"})
    decomposes = True
    primary = "auroc_mean"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {
        **DRAWING_OPTIONS,
        "bootstrap_replicates": 1000,
    }
    counts: ClassVar[Counts] = {**under(FUSED, DISEASE_COUNTS), **under(ECG_ONLY, DISEASE_COUNTS)}

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        where = "study: phases: options of task fuse"
        check_drawing(self.options, where=where)
        kind = generator_kind(parts)
        made_by = (*kind.conditioned_by, *kind.drawers, "cmr_encoder")
        self.reads = (*made_by, "screening_head", "screening_prior")
        if self._number("bootstrap_replicates") < 1:
            raise ConfigError("bootstrap_replicates is at least 1", where=where)

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> TokenTables:
        """Make or fetch the tokens of the training rows; the first time, a cine is drawn for each."""
        return self._tables(modules, site, split="train")

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Mean of ``disease_loss``; a label that is not known has no gradient."""
        tables = cast(TokenTables, state)
        logit_BD = _fused_logits(modules, tables, batch.row_B)
        per_sample_B = disease_loss(logit_BD, cast(torch.Tensor, batch.labels_BD)[:, :COUNT])
        total = per_sample_B.mean()
        return TaskLoss(total=total, per_sample_B=per_sample_B, parts={"diseases": float(total.detach())})

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums of ``disease_sums`` of both heads on the same rows: ``fused/...`` and ``ecg_only/...``."""
        rows = site.rows(self.needs, split)
        label_RD = site.cohort.diseases[rows, :COUNT].astype(np.float64)
        logits = {FUSED: np.zeros((0, COUNT)), ECG_ONLY: np.zeros((0, COUNT))}
        if len(rows):
            logits = {
                FUSED: self._fused(modules, site, rows, split=split),
                ECG_ONLY: self._ecg_only(modules, site, split=split),
            }
        sums = count_sums(site.cohort, rows)
        for prefix, logit_RD in logits.items():
            found = disease_sums(
                logit_RD,
                label_RD,
                cohort=site.cohort,
                rows=rows,
                replicates=int(self.options["bootstrap_replicates"]),
                seed=seed,
                smallest_cell=site.smallest_cell,
                draws=site.draws,
            )
            sums |= {f"{prefix}{name}": value for name, value in found.items()}
        return sums

    def replicates(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Task.replicates``."""
        fused = {n.removeprefix(FUSED): value for n, value in sums.items() if n.startswith(FUSED)}
        return auroc_replicates(fused)

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """``disease_metrics`` of the fusion head, those of the ECG alone as ``ecg_only/...``, and the gain.

        ``auroc_gain_mean`` and the like are fused minus ECG-only, with the paired bootstrap's interval.
        """
        fused, alone = (
            {name.removeprefix(prefix): value for name, value in sums.items() if name.startswith(prefix)}
            for prefix in (FUSED, ECG_ONLY)
        )
        return {
            "n_rows": float(sums["n_rows"][0]),
            "n_patients": float(sums["n_patients"][0]),
            **disease_metrics(fused),
            **{f"{ECG_ONLY}{name}": value for name, value in disease_metrics(alone).items()},
            **auroc_gain(fused, alone),
        }

    def _tables(self, modules: Modules, site: SiteView, *, split: Split) -> TokenTables:
        settings = drawing_of(self.options, preset_of(site.shape))
        rows, total = site.rows(self.needs, split), len(site.cohort.row_patient)
        ecg = ecg_tokens(modules, site, needs=self.needs, split=split)
        cmr = drawn_tokens(modules, site, needs=self.needs, split=split, settings=settings)
        return TokenTables(ecg=RowTable(ecg, rows, total=total), cmr=RowTable(cmr, rows, total=total))

    def _fused(self, modules: Modules, site: SiteView, rows: np.ndarray, *, split: Split) -> np.ndarray:
        tables = self._tables(modules, site, split=split)
        modules["fusion_head"].eval()
        row_R = torch.from_numpy(rows).to(site.device)
        with torch.no_grad():
            parts = [_fused_logits(modules, tables, some) for some in row_R.split(EVALUATION_BATCH)]
        return torch.cat(parts).double().cpu().numpy()

    def _ecg_only(self, modules: Modules, site: SiteView, *, split: Split) -> np.ndarray:
        feature_RD = mean_features(modules, site, needs=self.needs, split=split, frozen=True)
        head_RL = apply_head(modules["screening_head"], feature_RD.to(site.device)).to(site.device)
        return apply_head(modules["screening_prior"], head_RL).numpy()[:, :COUNT]


def _fused_logits(modules: Modules, tables: TokenTables, row_B: torch.Tensor) -> torch.Tensor:
    """Adjusted logits, float32 ``[B, D]``."""
    tokens = (table.take(row_B).float() for table in (tables.ecg, tables.cmr))
    return modules["screening_prior"](modules["fusion_head"](*tokens).float())
