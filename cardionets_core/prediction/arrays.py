"""What a model says of ECGs that lie in memory: an array in millivolts instead of files.

Comes in: an open model and signals. Goes out: arrays with one row an ECG. The way is that of a recording of a
file: checked, filtered and packed, then the feature, then the heads, so that the numbers are those of
``cardionets-client predict``.

Legend: B ECGs, L leads, T samples, K phenotypes, D diseases, C subtypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cardionets_core.data.pack import pack_recording
from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.records import DISEASES, LEADS, SUBTYPES, EcgRecord, Read, Recording
from cardionets_core.data.sources import Source
from cardionets_core.errors import DataError
from cardionets_core.prediction.diseases import predict_diseases
from cardionets_core.prediction.phenotypes import predict_phenotypes
from cardionets_core.prediction.predictor import Predictor

NO_FILE = "the array"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedArrays:
    """Of each ECG; NaN where the model was not trained for it, and in the rows of refused ECGs.

    Attributes:
        phenotypes_BK: float64, in the units and the order of ``PHENOTYPES``.
        diseases_BD: float64 probabilities, in the order of ``DISEASES``.
        subtypes_BC: float64 probabilities given a cardiomyopathy, in the order of ``SUBTYPES``.
        refused: of each ECG a key of ``REFUSAL_REASONS``, or an empty text.
    """

    phenotypes_BK: np.ndarray
    diseases_BD: np.ndarray
    subtypes_BC: np.ndarray
    refused: tuple[str, ...]


def predict_arrays(model: Predictor, ecg_BLT: np.ndarray, *, fs_hz: float) -> PredictedArrays:
    """Predict for every ECG of an array, one after the other.

    Args:
        model: open.
        ecg_BLT: millivolts [B, 12, T], leads in the order of ``LEADS``; NaN where a sample is missing.
        fs_hz: samples per second.

    Raises:
        DataError: the array has another shape or type, or the rate is none.
    """
    ecg_BLT = np.asarray(ecg_BLT)
    if ecg_BLT.ndim != 3 or ecg_BLT.shape[1] != len(LEADS) or ecg_BLT.dtype.kind not in "fiu":
        raise DataError(
            f"the array is {ecg_BLT.dtype} {list(ecg_BLT.shape)}, not numbers [ECGs, {len(LEADS)}, samples]",
            where=NO_FILE,
            remedy=f"give millivolts, leads in the order {', '.join(LEADS)}",
        )
    if not (np.isfinite(fs_hz) and fs_hz > 0):
        raise DataError(f"the rate is {fs_hz} Hz", where=NO_FILE, remedy="give samples per second")
    count = len(ecg_BLT)
    found = PredictedArrays(
        phenotypes_BK=np.full((count, len(PHENOTYPES)), np.nan),
        diseases_BD=np.full((count, len(DISEASES)), np.nan),
        subtypes_BC=np.full((count, len(SUBTYPES)), np.nan),
        refused=(),
    )
    reasons = [_predict_one(model, ecg_LT, fs_hz, found, b) for b, ecg_LT in enumerate(ecg_BLT)]
    return PredictedArrays(
        phenotypes_BK=found.phenotypes_BK,
        diseases_BD=found.diseases_BD,
        subtypes_BC=found.subtypes_BC,
        refused=tuple(reasons),
    )


def _predict_one(model: Predictor, ecg_LT: np.ndarray, fs_hz: float, found: PredictedArrays, b: int) -> str:
    """Fill in one row; returns why it was refused, if it was."""
    record = EcgRecord(signal_mv=ecg_LT.astype(np.float32), fs_hz=fs_hz, leads=LEADS)
    packed = pack_recording(
        cast(Source, _InMemory(record)), Recording(patient="", visit="", kind="ecg", path=Path(NO_FILE))
    )
    if packed.ecg is None:
        return packed.reason
    feature_RD = model.feature(packed.ecg)
    if "phenotypes" in model.parts:
        columns = {phenotype.field: k for k, phenotype in enumerate(PHENOTYPES)}
        for each in predict_phenotypes(model, feature_RD):
            found.phenotypes_BK[b, columns[each.phenotype.field]] = each.value
    if "screening" in model.parts:
        screened = predict_diseases(model, feature_RD)
        for disease in screened.diseases:
            found.diseases_BD[b, DISEASES.index(disease.disease)] = disease.probability
        for name, probability in screened.subtypes.items():
            found.subtypes_BC[b, SUBTYPES.index(name)] = probability
    return ""


@dataclass(frozen=True, slots=True)
class _InMemory:
    """A source of one recording, for ``pack_recording``, which asks a source for nothing but ``read``."""

    record: EcgRecord

    def read(self, recording: Recording) -> Read:
        return self.record
