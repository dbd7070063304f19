"""Probabilities of five diseases, and of the subtypes of cardiomyopathy, predicted from one ECG.

Comes in: the feature of an ECG. Goes out: a probability at the prevalence of the study, mapped by the
calibration where there is one, with the threshold and what was measured on test patients. The arithmetic is
that of the tasks ``screening`` and ``calibrate``.

Legend: R rows (one here), D diseases, C subtypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from cardionets_core.data.records import DISEASES, SUBTYPES
from cardionets_core.models.solved import ScreeningCalibration, ScreeningPrior
from cardionets_core.prediction.predictor import Predictor
from cardionets_core.tasks.binary_sums import probabilities
from cardionets_core.tasks.head_task import apply_head

HEAD, PRIOR, CALIBRATION = "screening_head", "screening_prior", "screening_calibration"
DISCRIMINATION = ("auroc", "auroc_low", "auroc_high", "n", "positives")
"""Metrics of the task ``screening``, which a calibration does not change."""
DECISIONS = ("sensitivity", "specificity")
"""Metrics of the task ``calibrate`` at its threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedDisease:
    """One disease.

    Attributes:
        disease: short name, of ``DISEASES``.
        probability: at the study's prevalence.
        calibrated: the map of the study's validation patients was applied.
        prevalence: share of the training recordings with the disease, half a case added to each class.
        threshold: probability from which on it counts as positive; None where the study set none.
        above_threshold: whether it is reached.
        held_out: metrics on test patients, ``auroc``, ``ece`` and the like, as far as they are known.
    """

    disease: str
    probability: float
    calibrated: bool
    prevalence: float
    threshold: float | None = None
    above_threshold: bool | None = None
    held_out: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """All of it.

    Attributes:
        diseases: those that were trained, in the order of ``DISEASES``.
        subtypes: probability of each, given a cardiomyopathy; empty where none was trained.
        subtypes_held_out: ``subtype_accuracy`` and the like on test patients.
    """

    diseases: tuple[PredictedDisease, ...]
    subtypes: Mapping[str, float]
    subtypes_held_out: Mapping[str, float]


def predict_diseases(model: Predictor, feature_RD: torch.Tensor) -> Screened:
    """Probabilities of one ECG.

    Args:
        model: can do ``screening``.
        feature_RD: of ``Predictor.feature``.
    """
    adjusted = torch.nn.Sequential(model.modules[HEAD], model.modules[PRIOR])
    logit_L = apply_head(adjusted, feature_RD.to(model.device))[0].numpy()
    slope_D, intercept_D, threshold_D = calibration_of(model)
    prior_D = prior_of(model).logit.double().cpu().numpy()
    calibrated_D = logit_L[: len(DISEASES)] * slope_D + intercept_D
    tested = model.stored.metrics_of("screening")
    found = []
    for d in trained_diseases(model):
        # Where too few people were ill the calibration stays neutral, and its threshold means nothing.
        fitted = (slope_D[d], intercept_D[d]) != (1.0, 0.0)
        bounded = fitted or threshold_D[d] != 0.0
        found.append(
            PredictedDisease(
                disease=DISEASES[d],
                probability=float(probabilities(calibrated_D[d])),
                calibrated=fitted,
                prevalence=float(probabilities(prior_D[d])),
                threshold=float(probabilities(threshold_D[d])) if bounded else None,
                above_threshold=bool(calibrated_D[d] >= threshold_D[d]) if bounded else None,
                held_out=_held_out(model, DISEASES[d]),
            )
        )
    return Screened(
        diseases=tuple(found),
        subtypes=_subtypes(model, logit_L[len(DISEASES) :]),
        subtypes_held_out={
            name: tested[name]
            for name in ("subtype_accuracy", "subtype_auroc_macro", "subtype_n")
            if name in tested
        },
    )


def trained_diseases(model: Predictor) -> list[int]:
    """Places in ``DISEASES`` of those that anybody was assessed for.

    Half a case is added to each class, so one that nobody was assessed for has log odds of exactly 0.
    """
    logit_D = prior_of(model).logit.tolist()
    tested = model.stored.metrics_of("screening")
    return [d for d, name in enumerate(DISEASES) if logit_D[d] != 0.0 or f"auroc/{name}" in tested]


def _held_out(model: Predictor, disease: str) -> dict[str, float]:
    """Discrimination of the head; calibration of what is shown, mapped or not."""
    head, after = model.stored.metrics_of("screening"), model.stored.metrics_of("calibrate")
    found = {name: head[f"{name}/{disease}"] for name in DISCRIMINATION if f"{name}/{disease}" in head}
    shown = after if CALIBRATION in model.modules else head
    for source, names in ((shown, ("ece", "brier")), (after, DECISIONS)):
        found |= {name: source[f"{name}/{disease}"] for name in names if f"{name}/{disease}" in source}
    return found


def _subtypes(model: Predictor, logit_C: np.ndarray) -> dict[str, float]:
    share_C = prior_of(model).log_share.cpu().numpy()
    tested = model.stored.metrics_of("screening").get("subtype_n", 0.0) > 0
    if not tested and (share_C == share_C[0]).all():  # equal shares are those of nobody
        return {}
    weight_C = np.exp(logit_C - logit_C.max())
    return {name: float(p) for name, p in zip(SUBTYPES, weight_C / weight_C.sum(), strict=True)}


def prior_of(model: Predictor) -> ScreeningPrior:
    """The study's prevalences."""
    return cast(ScreeningPrior, model.modules[PRIOR])


def calibration_of(model: Predictor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, intercept, threshold, float64 [D]; neutral where the model has none."""
    if CALIBRATION not in model.modules:
        return np.ones(len(DISEASES)), np.zeros(len(DISEASES)), np.zeros(len(DISEASES))
    module = cast(ScreeningCalibration, model.modules[CALIBRATION])
    slope, intercept, threshold = (
        value.double().cpu().numpy() for value in (module.slope, module.intercept, module.threshold)
    )
    return slope, intercept, threshold
