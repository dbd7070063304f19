"""Predictions as one JSON-ready dict, under a schema version.

Comes in: predictions and their model. Goes out: plain numbers and words: no file of the hospital, no
identifier; a recording is the n-th of the m-th path. Numbers that are not known are None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.records import DISEASES
from cardionets_core.errors import REFUSAL_REASONS
from cardionets_core.prediction.diseases import PredictedDisease, Screened
from cardionets_core.prediction.phenotypes import INTERVAL_WORDS, RANGE_WORDS, PredictedPhenotype
from cardionets_core.prediction.predictor import PARTS, Predictor
from cardionets_core.release.opening import Release
from cardionets_core.tasks.drawing import NOTICE
from client.predict.explain import BIN_SAMPLES, Explained, Target, can_explain
from client.predict.prediction import Prediction
from client.wording import DISEASES as DISEASE_NAMES

SCHEMA_VERSION = 1
RESEARCH_ONLY = "Research use only. Not for diagnosis."
WITHOUT_COVARIATES = (
    "This model was trained, and its errors were measured, with age and sex beside the ECG. Here it is told "
    "neither, so it may be worse than they say."
)
HELD_OUT = (
    "auroc",
    "auroc_low",
    "auroc_high",
    "ece",
    "brier",
    "sensitivity",
    "specificity",
    "n",
    "positives",
)
_BIN_S = BIN_SAMPLES / 250.0


def prediction_content(
    model: Predictor,
    recordings: Sequence[Mapping[str, Any]],
    *,
    targets: Sequence[Target] = (),
    release: Release | None = None,
) -> dict[str, Any]:
    """The whole result.

    Args:
        model: that predicted.
        recordings: of ``recording_content``, in the order in which they were named.
        targets: what was to be explained.
        release: that the model comes from; None for a run's own folder.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_ONLY,
        "model": {
            "digest": model.stored.model_digest,
            "study": model.stored.study,
            "study_digest": model.stored.study_digest,
            "preset": model.stored.preset,
            "release": None if release is None else _release(release),
            "not_in_this_model": {part: list(names) for part, names in model.lacking.items()},
            "not_explained": [target.name for target in targets if not can_explain(model, target)],
        },
        "meaning": {
            "reference": RANGE_WORDS,
            "interval": INTERVAL_WORDS,
            "cine": NOTICE,
            "covariates": WITHOUT_COVARIATES if model.preset.parts.takes_covariates else None,
        },
        "recordings": list(recordings),
    }


def _release(release: Release) -> dict[str, Any]:
    signer = release.signer
    return {
        "signed_by": release.signed_by,
        "fingerprint": None if signer is None else signer.fingerprint,
        "trusted": signer is not None and signer.vouched,
    }


def parts_lacking(content: Mapping[str, Any]) -> list[str]:
    """Parts that the model cannot do, in the order of ``PARTS``."""
    return [part for part in PARTS if part in content["model"]["not_in_this_model"]]


def recording_content(prediction: Prediction, *, files: Sequence[str] = ()) -> dict[str, Any]:
    """One recording; ``files`` are the names of the files of its cine."""
    heard = prediction.heard
    argument, record = (int(part) for part in heard.number.split("."))
    head: dict[str, Any] = {"argument": argument, "record": record, "format": heard.title or None}
    if heard.counts is None:
        sentence = REFUSAL_REASONS[heard.reason]
        return head | {"verdict": "refused", "reason": heard.reason, "sentence": sentence, "flags": []}
    phenotypes, screened = prediction.phenotypes, prediction.screened
    return head | {
        "verdict": "flagged" if heard.flags else "accepted",
        "reason": None,
        "sentence": "",
        "flags": list(heard.flags),
        "rate_hz": _number(float(heard.facts["fs_hz"])),
        "seconds": _number(float(heard.facts["duration_s"])),
        "shorter_than_window": prediction.short,
        "phenotypes": None if phenotypes is None else [_phenotype(each) for each in phenotypes],
        "phenotypes_untrained": None if phenotypes is None else len(PHENOTYPES) - len(phenotypes),
        "screening": None if screened is None else _screening(screened),
        "cine": None
        if prediction.cine is None
        else {
            "synthetic": True,
            "seed": prediction.cine.seed,
            "frames": len(prediction.cine.pixels),
            "pixel_mm": _number(prediction.cine.spacing_mm),
            "files": list(files),
        },
        "explained": [_explained(each) for each in prediction.explained],
    }


def _phenotype(found: PredictedPhenotype) -> dict[str, Any]:
    return {
        "field": found.phenotype.field,
        "name": found.phenotype.name,
        "title": found.phenotype.title,
        "unit": found.phenotype.unit,
        "value": _number(found.value),
        "low": _number(found.low),
        "high": _number(found.high),
        "reference_low": _number(found.reference_low),
        "reference_high": _number(found.reference_high),
        "held_out_rmse": _number(found.rmse),
        "held_out_r2": _number(found.r2),
        "better_than_mean": found.beats_mean,
    }


def _screening(screened: Screened) -> dict[str, Any]:
    return {
        "diseases": [_disease(each) for each in screened.diseases],
        "diseases_untrained": len(DISEASES) - len(screened.diseases),
        "subtypes_given_cm": {name: _number(p) for name, p in screened.subtypes.items()},
        "subtypes_held_out": {name: _number(value) for name, value in screened.subtypes_held_out.items()},
    }


def _disease(found: PredictedDisease) -> dict[str, Any]:
    return {
        "disease": found.disease,
        "title": DISEASE_NAMES[found.disease][0],
        "probability": _number(found.probability),
        "calibrated": found.calibrated,
        "prevalence": _number(found.prevalence),
        "threshold": _number(found.threshold),
        "above_threshold": found.above_threshold,
        "held_out": {name: _number(found.held_out.get(name)) for name in HELD_OUT},
    }


def _explained(found: Explained) -> dict[str, Any]:
    return {
        "name": found.target.name,
        "unit": found.target.unit,
        "output": _number(found.output),
        "flat_trace": _number(found.baseline),
        "missed": _number(found.missed),
        "lead_shares": {lead: _number(share) for lead, share in found.lead_shares.items()},
        "bin_s": _BIN_S,
        "map": [[_number(float(value)) for value in row] for row in found.map_LS],
    }


def _number(value: float | None) -> float | None:
    """Rounded to 6 significant digits."""
    return None if value is None else float(f"{value:.6g}")
