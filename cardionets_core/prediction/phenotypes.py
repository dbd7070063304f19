"""CMR phenotypes predicted from one ECG, with what is known of their error.

Comes in: the feature of an ECG. Goes out: one value a column that was trained, in the unit of its field. The
arithmetic is that of the tasks ``phenotype`` and ``probe``, so a value equals the one that was evaluated.

The range beside a value is that of the study's training patients, not a clinical normal range. The interval
is built from the error on test patients whom the model never saw; it holds for people like them.

Legend: K phenotypes, R rows (one here), D width of the feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from cardionets_core.data.phenotypes import PHENOTYPES, Phenotype
from cardionets_core.models.solved import PhenotypeStandardiser
from cardionets_core.prediction.predictor import Predictor
from cardionets_core.tasks.head_task import apply_head

NORMAL_95 = 1.959963984540054
"""Half the width of the central 95 % of a normal distribution, in SD."""
HEAD, STANDARDISER, PROBE = "phenotype_head", "phenotype_standardiser", "phenotype_probe"
RANGE_WORDS = "range of 95 % of the study's training patients if normally distributed"
INTERVAL_WORDS = "95 % prediction interval from the error on the study's test patients"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedPhenotype:
    """One column.

    Attributes:
        phenotype: field, name, title and unit.
        value: in the unit.
        reference_low: mean - 1.96 SD of the training patients; None without a standardiser.
        reference_high: mean + 1.96 SD of the training patients.
        low: lower end of the 95 % prediction interval; None where the column was not tested.
        high: its upper end.
        rmse: root mean square error on test patients, in the unit.
        r2: R2 on test patients.
    """

    phenotype: Phenotype
    value: float
    reference_low: float | None = None
    reference_high: float | None = None
    low: float | None = None
    high: float | None = None
    rmse: float | None = None
    r2: float | None = None

    @property
    def beats_mean(self) -> bool | None:
        """Whether test patients were predicted better than by their mean; None where not tested."""
        return None if self.r2 is None else self.r2 > 0.0


def predict_phenotypes(model: Predictor, feature_RD: torch.Tensor) -> list[PredictedPhenotype]:
    """Every column that was trained, in the order of the fields; those that were not are left out.

    Args:
        model: can do ``phenotypes``.
        feature_RD: of ``Predictor.feature``.
    """
    with_head = HEAD in model.parts["phenotypes"]
    output_K = apply_head(model.modules[HEAD if with_head else PROBE], feature_RD.to(model.device))[0].numpy()
    mean_K, deviation_K = _range_of(model)
    if with_head:
        output_K = output_K * deviation_K + mean_K
    metrics = model.stored.metrics_of("phenotype" if with_head else "probe")
    trained_K = trained_columns(model)
    return [
        _column(PHENOTYPES[k], float(output_K[k]), mean=mean_K[k], deviation=deviation_K[k], metrics=metrics)
        for k in np.flatnonzero(trained_K)
    ]


def trained_columns(model: Predictor) -> np.ndarray:
    """Which columns the sites had values of, bool [K].

    A standardiser that saw no variation in a column keeps an SD of exactly 1; a probe that was not trained on
    a column keeps weights and bias of 0.
    """
    if HEAD in model.parts["phenotypes"]:
        return _range_of(model)[1] != 1.0
    probe = cast(nn.Linear, model.modules[PROBE])
    return (probe.weight.any(dim=1) | (probe.bias != 0)).cpu().numpy()


def _range_of(model: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD of the training patients, float64 [K]; SD 1 where unknown."""
    if STANDARDISER not in model.modules:
        return np.zeros(len(PHENOTYPES)), np.ones(len(PHENOTYPES))
    standardiser = cast(PhenotypeStandardiser, model.modules[STANDARDISER])
    mean, deviation = (value.double().cpu().numpy() for value in (standardiser.mean, standardiser.deviation))
    return mean, deviation


def _column(
    phenotype: Phenotype, value: float, *, mean: float, deviation: float, metrics: Mapping[str, float]
) -> PredictedPhenotype:
    rmse, r2 = (metrics.get(f"{name}/{phenotype.field}") for name in ("rmse", "r2"))
    known = deviation != 1.0
    return PredictedPhenotype(
        phenotype=phenotype,
        value=value,
        reference_low=float(mean - NORMAL_95 * deviation) if known else None,
        reference_high=float(mean + NORMAL_95 * deviation) if known else None,
        low=None if rmse is None else value - NORMAL_95 * rmse,
        high=None if rmse is None else value + NORMAL_95 * rmse,
        rmse=rmse,
        r2=r2,
    )
