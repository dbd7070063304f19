"""Standardiser and calibration as JSON for people; the same numbers as in the tensors beside them.

Comes in: an opened model. Goes out: JSON-ready content, only of what was trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.records import DISEASES, LABEL_TITLES, SUBTYPES
from cardionets_core.prediction.diseases import calibration_of, prior_of, subtypes_trained, trained_diseases
from cardionets_core.prediction.phenotypes import STANDARDISER, range_of
from cardionets_core.prediction.predictor import Predictor
from cardionets_core.tasks.binary_sums import probabilities

SCHEMA_VERSION = 1


def standardiser_of(model: Predictor) -> dict[str, Any] | None:
    """Mean and SD of each phenotype over the study's training patients; None without a standardiser."""
    if STANDARDISER not in model.modules:
        return None
    mean_K, deviation_K = range_of(model)
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "value = standardised * sd + mean; phenotypes that no site had values of are left out",
        "phenotypes": [
            {
                "field": PHENOTYPES[k].field,
                "name": PHENOTYPES[k].name,
                "unit": PHENOTYPES[k].unit,
                "mean": float(mean_K[k]),
                "sd": float(deviation_K[k]),
            }
            for k in np.flatnonzero(deviation_K != 1.0)
        ],
    }


def calibration_json(model: Predictor) -> dict[str, Any] | None:
    """Prevalence, calibration and threshold of each disease; None where no disease is predicted."""
    if "screening" not in model.parts:
        return None
    slope_D, intercept_D, threshold_D = calibration_of(model)
    prior = prior_of(model)
    prior_D = prior.logit.double().cpu().numpy()
    diseases = []
    for d in trained_diseases(model):
        fitted = (slope_D[d], intercept_D[d]) != (1.0, 0.0)
        bounded = fitted or threshold_D[d] != 0.0
        diseases.append(
            {
                "name": DISEASES[d],
                "title": LABEL_TITLES[DISEASES[d]],
                "prevalence": float(probabilities(prior_D[d])),
                "prior_logit": float(prior_D[d]),
                "calibrated": bool(fitted),
                "slope": float(slope_D[d]),
                "intercept": float(intercept_D[d]),
                "threshold_probability": float(probabilities(threshold_D[d])) if bounded else None,
            }
        )
    share_S = np.exp(prior.log_share.double().cpu().numpy())
    return {
        "schema_version": SCHEMA_VERSION,
        "what": "probability = 1 / (1 + exp(-((logit + prior_logit) * slope + intercept)))",
        "diseases": diseases,
        "subtype_shares_given_cm": dict(zip(SUBTYPES, share_S.tolist(), strict=True))
        if subtypes_trained(model)
        else {},
    }
