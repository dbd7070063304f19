"""Alignment: the ECG's embedding moves to that of the cine of the same visit (SCIENCE 4 and 5.2b).

The CMR tower is frozen; its features of all local training cines form a bank of negatives that is exact for
the whole round, because only the projection Pc is applied anew at each step.

Legend: B rows, N entries of the bank, R rows of the gallery, D feature's width, E width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch.nn.functional import normalize

from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort, Split
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError
from cardionets_core.losses import bank_info_nce, info_nce
from cardionets_core.tasks.base import GradientTask, Modules, Scalar, Sums, TaskLoss, count_sums, one
from cardionets_core.tasks.features import cmr_features, ecg_features

GALLERY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Frozen features of all local training cines, each cine once.

    Attributes:
        feature_ND: float16.
        patient_N: int64, the patient of each entry.
    """

    feature_ND: torch.Tensor
    patient_N: torch.Tensor


class Align(GradientTask):
    """InfoNCE with a local bank. The loss couples the rows of a batch and of the site.

    Options:
        temperature: T of the softmax.
    """

    name = "align"
    trains = ("ecg_encoder", "ecg_projection", "cmr_projection")
    reads = ("cmr_encoder",)
    needs = frozenset({"ecg", "cine"})
    decomposes = False
    minimum_batch = 8
    primary = "recall@5"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {"temperature": 0.05}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        if not self._number("temperature") > 0.0:
            raise ConfigError("temperature is above 0", where="study: phases: options of task align")

    def open_round(
        self, modules: Modules, cohort: Cohort, *, shape: InputShape, device: torch.device
    ) -> Bank:
        """Encode every local training cine once."""
        rows = cohort.rows(self.needs, "train", shape)
        _, first = np.unique(cohort.row_cine[rows], return_index=True)
        entries = rows[np.sort(first)]
        feature_ND = cmr_features(modules["cmr_encoder"], cohort, entries, shape=shape, device=device)
        patient_N = torch.from_numpy(cohort.row_patient[entries].astype(np.int64)).to(device)
        return Bank(feature_ND=feature_ND.half(), patient_N=patient_N)

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """ECG to cine over the bank, cine to ECG over the batch; other rows of a patient are no negatives."""
        bank = cast(Bank, state)
        with torch.no_grad():
            own_BD = modules["cmr_encoder"](batch.cine_BFYX)
        project = modules["cmr_projection"]
        patient_B = batch.patient_B[:, None]
        total = bank_info_nce(
            modules["ecg_projection"](modules["ecg_encoder"](batch.ecg_BLT)),
            project(own_BD),
            bank_NE=project(bank.feature_ND.to(own_BD.dtype)),
            same_patient_BN=patient_B == bank.patient_N[None, :],
            same_patient_BB=patient_B == batch.patient_B[None, :],
            temperature=self._number("temperature"),
        )
        return TaskLoss(total=total, parts={"info_nce": float(total.detach())})

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
        """Retrieval inside the site: each ECG of the gallery looks for its cine.

        The gallery holds one row of each of at most 256 patients, drawn from the seed. A rank counts the
        cines that score at least as high as the own one, so that a collapsed model gains nothing by ties.
        """
        rows = cohort.rows(self.needs, split, shape)
        order = np.random.default_rng(seed).permutation(rows)
        _, first = np.unique(cohort.row_patient[order], return_index=True)
        rows = order[np.sort(first)][:GALLERY]
        empty = {
            "rank_histogram": np.zeros(GALLERY),
            "cosine": one(0.0),
            "loss": one(0.0),
            "gallery": one(0.0),
        }
        if not len(rows):
            return {**count_sums(cohort, rows), **empty}
        with torch.no_grad():
            for name in (*self.trains, *self.reads):
                modules[name].eval()
            feature_RD = ecg_features(modules["ecg_encoder"], cohort, rows, shape=shape, device=device)
            ecg_RE = modules["ecg_projection"](feature_RD.float().to(device)).cpu()
            cine_RD = cmr_features(modules["cmr_encoder"], cohort, rows, shape=shape, device=device)
            cmr_RE = modules["cmr_projection"](cine_RD).cpu()
            score_RR = normalize(ecg_RE.double(), dim=1) @ normalize(cmr_RE.double(), dim=1).T
            own_R = score_RR.diagonal()
            rank_R = (score_RR >= own_R[:, None]).sum(dim=1).numpy() - 1
            loss = float(info_nce(ecg_RE, cmr_RE, temperature=self._number("temperature")))
        return {
            **count_sums(cohort, rows),
            "rank_histogram": np.bincount(rank_R, minlength=GALLERY).astype(np.float64),
            "cosine": one(float(own_R.sum())),
            "loss": one(loss * len(rows)),
            "gallery": one(float(len(rows)) ** 2),
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Recall@1/5/10, median rank (from 1), mean cosine of pairs, loss, mean gallery that a row saw."""
        rows = float(sums["n_rows"][0])
        found = {"n_rows": rows, "n_patients": float(sums["n_patients"][0])}
        if rows <= 0:
            return found
        reached = np.cumsum(sums["rank_histogram"])
        for k in (1, 5, 10):
            found[f"recall@{k}"] = float(reached[k - 1] / rows)
        found["median_rank"] = float(np.searchsorted(reached, rows / 2.0) + 1)
        found["cosine"] = float(sums["cosine"][0] / rows)
        found["loss"] = float(sums["loss"][0] / rows)
        found["gallery"] = float(sums["gallery"][0] / rows)
        return found
