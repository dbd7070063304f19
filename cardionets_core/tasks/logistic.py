"""The screening head as a logistic regression on the frozen ECG feature, solved from sums (SCIENCE 4).

A closed-form task of several rounds of iteratively reweighted least squares: sites send the sums of a
weighted regression at the head that came in, the server solves it for all. That equals the step on pooled
rows, so the head ends where one on all data would, however unlike the sites are. A phase screening goes on
from there; with its encoder trained along, that is the order of Kumar et al. 2022 (arXiv 2202.10054). For
the curvature stand bounds above it, so no step goes too far and the loss falls in every round: for diseases
that of Jaakkola and Jordan (2000), for subtypes that of Boehning (1992).

Legend: R rows, D feature's width, P = D + 1 with a constant last, N diseases, C subtypes, L = N + C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from scipy.special import expit, softmax

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.cohort import Split
from cardionets_core.data.records import DISEASES
from cardionets_core.errors import ConfigError
from cardionets_core.models.heads import ScreeningHead
from cardionets_core.privacy.counts import CELL, DIVISOR, Counts
from cardionets_core.tasks.base import ClosedFormTask, Modules, Scalar, SiteView, Sums, one
from cardionets_core.tasks.head_task import apply_head
from cardionets_core.tasks.row_features import mean_features
from cardionets_core.tasks.screening import Screening, known_labels

BOUND = 0.5
"""Of the curvature of a softmax in each of its logits."""
SMALL = 1e-4
"""A logit at which the bound is that at 0, a quarter."""
LEAST_VARIANCE = 1e-6
"""Of a feature, in units of the largest: a constant one is not free to grow."""


class Logistic(ClosedFormTask):
    """``sum_i BCE_id + penalty / 2 |w_d|^2`` for each disease, of features of variance 1.

    Options:
        penalty: of the squared weights, against the sum over rows.
        bootstrap_replicates: of people, in the metrics.
    """

    name = "logistic"
    trains = ("screening_head",)
    reads = ("ecg_encoder", "screening_prior")
    needs = frozenset({"ecg", "labels"})
    decomposes = False
    primary = "auroc_mean"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {"penalty": 1.0, "bootstrap_replicates": 1000}
    counts: ClassVar[Counts] = {
        "rows": DIVISOR,
        "ill": CELL,
        "well": CELL,
        "subtype_known": CELL,
        **Screening.counts,
    }

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        replicates = self.options["bootstrap_replicates"]
        if self._number("penalty") <= 0 or int(replicates) < 1:
            raise ConfigError(
                "options of logistic are positive", where="study: phases: options of task logistic"
            )
        self._measure = Screening({"windows": "mean", "bootstrap_replicates": replicates})

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """What the regressions need of the training rows, at the head that came in.

        ``rows``, ``feature`` and ``feature_squared`` [D]; for each disease ``curvature`` [N, P, P],
        ``response`` [N, P], and ``ill`` and ``well`` [N], how many are; for subtypes
        ``subtype_curvature`` [P, P], ``subtype_response`` [C, P] and ``subtype_known`` [C].
        """
        head = cast(ScreeningHead, modules["screening_head"])
        theta_LP = _theta(head)
        feature_RD = mean_features(modules, site, needs=self.needs, split="train", frozen=True)
        x_RD = feature_RD.double().numpy().reshape(len(feature_RD), theta_LP.shape[1] - 1)
        x_RP = np.concatenate([x_RD, np.ones((len(x_RD), 1))], axis=1)
        logit_RL = x_RP @ theta_LP.T
        adjusted_RL = apply_head(modules["screening_prior"], torch.from_numpy(logit_RL)).numpy()
        label_RL = known_labels(site, site.rows(self.needs, "train"))
        count = len(DISEASES)
        parts = [_disease_sums(x_RP, logit_RL[:, d], adjusted_RL[:, d], label_RL[:, d]) for d in range(count)]
        return {
            "rows": one(len(x_RD)),
            "feature": x_RD.sum(axis=0),
            "feature_squared": (x_RD**2).sum(axis=0),
            **{name: np.stack([part[name] for part in parts]) for name in parts[0]},
            **_subtype_sums(x_RP, logit_RL[:, count:], adjusted_RL[:, count:], label_RL[:, count:]),
        }

    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Weights and biases of the head; 0, which predicts the prior, where nobody is ill, or everybody."""
        penalty_PP = self._penalty(sums)
        found = {}
        for place, disease in enumerate(DISEASES):
            theta_P = np.zeros(len(penalty_PP))
            if sums["ill"][place] > 0 and sums["well"][place] > 0:
                theta_P = np.linalg.solve(sums["curvature"][place] + penalty_PP, sums["response"][place])
            found[f"diseases.{disease}.weight"] = theta_P[None, :-1].astype(np.float32)
            found[f"diseases.{disease}.bias"] = theta_P[-1:].astype(np.float32)
        theta_CP = np.zeros_like(sums["subtype_response"])
        if (sums["subtype_known"] > 0).sum() > 1:
            theta_CP = np.linalg.solve(sums["subtype_curvature"] + penalty_PP, sums["subtype_response"].T).T
        found["subtype.weight"] = np.ascontiguousarray(theta_CP[:, :-1], dtype=np.float32)
        found["subtype.bias"] = theta_CP[:, -1].astype(np.float32)
        return found

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Those of ``screening``."""
        return self._measure.metric_sums(modules, site, split=split, seed=seed)

    def replicates(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Task.replicates``."""
        return self._measure.replicates(sums)

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Those of ``screening``."""
        return self._measure.metrics(sums)

    def _penalty(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = max(1.0, float(sums["rows"][0]))
        variance_D = sums["feature_squared"] / rows - (sums["feature"] / rows) ** 2
        least = LEAST_VARIANCE * float(variance_D.max()) or 1.0
        return np.diag([*(self._number("penalty") * np.maximum(variance_D, least)), 0.0])


def _theta(head: ScreeningHead) -> np.ndarray:
    """Weights and bias of each logit, float64 [L, P]."""
    linear = [*head.diseases.values(), head.subtype]
    weight_LD = torch.cat([cast(torch.nn.Linear, each).weight.detach() for each in linear])
    bias_L = torch.cat([cast(torch.nn.Linear, each).bias.detach() for each in linear])
    return torch.cat([weight_LD, bias_L[:, None]], dim=1).double().cpu().numpy()


def _disease_sums(x_RP: np.ndarray, logit_R: np.ndarray, adjusted_R: np.ndarray, label_R: np.ndarray) -> Sums:
    known_R = np.isfinite(label_R)
    x, label, adjusted = x_RP[known_R], label_R[known_R], adjusted_R[known_R]
    p, small = expit(adjusted), np.abs(adjusted) < SMALL
    weight = np.where(small, 0.25, (p - 0.5) / np.where(small, 1.0, adjusted))
    return {
        "curvature": x.T @ (weight[:, None] * x),
        "response": x.T @ (weight * logit_R[known_R] + label - p),
        "ill": np.float64((label == 1).sum()),
        "well": np.float64((label == 0).sum()),
    }


def _subtype_sums(
    x_RP: np.ndarray, logit_RC: np.ndarray, adjusted_RC: np.ndarray, label_RC: np.ndarray
) -> Sums:
    known_R = np.isfinite(label_RC).all(axis=1)
    x, label = x_RP[known_R], label_RC[known_R]
    p = softmax(adjusted_RC[known_R], axis=1)
    return {
        "subtype_curvature": BOUND * x.T @ x,
        "subtype_response": (BOUND * logit_RC[known_R] + label - p).T @ x,
        "subtype_known": (label == 1).sum(axis=0).astype(np.float64),
    }
