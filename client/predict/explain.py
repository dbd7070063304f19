"""What one prediction looks at: integrated gradients over leads and time.

Comes in: a packed ECG and the name of a phenotype or disease. Goes out: how much each tenth of a second of
each lead raised or lowered the output against a flat trace, averaged over the evaluation windows.

An attribution tells of the model, not of the heart: a lead may count because it is easy to read.

Legend: B windows (one here), L leads, T samples, S time bins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch

from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.records import DISEASES, LEADS
from cardionets_core.data.windows import EVALUATION_WINDOWS, evaluation_starts
from cardionets_core.errors import UsageError
from cardionets_core.evaluation.attribution import integrated_gradients
from cardionets_core.models.solved import PhenotypeStandardiser
from cardionets_core.prediction.diseases import HEAD as SCREENING_HEAD
from cardionets_core.prediction.diseases import calibration_of, prior_of, trained_diseases
from cardionets_core.prediction.phenotypes import HEAD as PHENOTYPE_HEAD
from cardionets_core.prediction.phenotypes import PROBE, STANDARDISER, trained_columns
from cardionets_core.prediction.predictor import ENCODER, Predictor

BIN_SAMPLES = 25
"""A tenth of a second at 250 Hz."""
_ECG = frozenset({"ecg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is explained.

    Attributes:
        part: ``phenotypes`` or ``screening``.
        name: short name of a disease, or key of a phenotype.
        column: of the head's output.
        unit: of the output.
    """

    part: Literal["phenotypes", "screening"]
    name: str
    column: int
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """An attribution on the time axis of the recording.

    Attributes:
        target: what is explained.
        map_LS: float64, in the target's unit; the last bin may be shorter than the others.
        output: mean output over the evaluation windows.
        baseline: mean output for a flat trace.
        missed: part of the change from baseline to output that the map does not hold.
    """

    target: Target
    map_LS: np.ndarray
    output: float
    baseline: float
    missed: float

    @property
    def lead_shares(self) -> dict[str, float]:
        """Lead to its share of all that raises or lowers; they add up to 1."""
        size_L = np.abs(self.map_LS).sum(axis=1)
        return dict(zip(LEADS, (size_L / max(size_L.sum(), np.finfo(float).tiny)).tolist(), strict=True))


def target_named(name: str) -> Target:
    """The phenotype (field number or key) or disease of a name.

    Raises:
        UsageError: there is none.
    """
    if name in DISEASES:
        return Target(part="screening", name=name, column=DISEASES.index(name), unit="log odds")
    for column, phenotype in enumerate(PHENOTYPES):
        if name in (str(phenotype.field), phenotype.name):
            return Target(part="phenotypes", name=phenotype.name, column=column, unit=phenotype.unit)
    raise UsageError(
        f"there is no phenotype or disease {name!r}",
        where="--explain",
        remedy=f"name a UK Biobank field from {PHENOTYPES[0].field} to {PHENOTYPES[-1].field}, or one of: "
        f"{', '.join(DISEASES)}",
    )


def can_explain(model: Predictor, target: Target) -> bool:
    """Whether the model predicts what is to be explained."""
    if target.part not in model.parts:
        return False
    if target.part == "screening":
        return target.column in trained_diseases(model)
    return bool(trained_columns(model)[target.column])


def explain(model: Predictor, counts: np.ndarray, target: Target) -> Explained:
    """Attribute one output to the leads and times of one ECG.

    Args:
        model: can do what the target names.
        counts: int16 [12, T].
        target: of ``target_named``.
    """
    view, output = model.view(counts), _output(model, target)
    length, samples = view.shape.ecg_samples, counts.shape[1]
    starts = evaluation_starts(samples, length)
    total_LT = np.zeros((len(LEADS), samples))
    sums = np.zeros(3)
    row = np.zeros(1, dtype=np.int64)
    for window, start in zip(range(EVALUATION_WINDOWS), starts, strict=False):
        ((_, batch),) = view.batches(row, keys=_ECG, window=window)
        assert batch.ecg_BLT is not None  # it was asked for
        found = integrated_gradients(output, batch.ecg_BLT)
        # An encoder may take more samples of the same time than the recording keeps.
        kept_LT = found.attribution_BLT[0].cpu().numpy().reshape(len(LEADS), length, -1).sum(axis=2)
        total_LT[:, start : start + length] += kept_LT / len(starts)
        sums += [float(each[0]) for each in (found.output_B, found.baseline_B, found.gap_B)]
    edges = np.arange(0, samples, BIN_SAMPLES)
    return Explained(
        target=target,
        map_LS=np.add.reduceat(total_LT, edges, axis=1),
        output=sums[0] / len(starts),
        baseline=sums[1] / len(starts),
        missed=sums[2] / len(starts),
    )


def _output(model: Predictor, target: Target) -> Callable[[torch.Tensor], torch.Tensor]:
    """Windows [B, L, T] to one number each, in the target's unit."""
    modules, column = model.modules, target.column
    scale, shift = 1.0, 0.0
    if target.part == "screening":
        head = modules[SCREENING_HEAD]
        slope_D, intercept_D, _ = calibration_of(model)
        scale = float(slope_D[column])
        shift = scale * float(prior_of(model).logit[column]) + float(intercept_D[column])
    elif PHENOTYPE_HEAD in model.parts["phenotypes"]:
        head = modules[PHENOTYPE_HEAD]
        standardiser = cast(PhenotypeStandardiser, modules[STANDARDISER])
        scale, shift = float(standardiser.deviation[column]), float(standardiser.mean[column])
    else:
        head = modules[PROBE]
    encoder = modules[ENCODER]
    return lambda ecg_BLT: head(encoder(ecg_BLT))[:, column] * scale + shift
