"""The model as MLflow serves it: a file of code that is logged beside the weights, and nothing pickled.

MLflow runs this file when the model is loaded; the weights come from the model folder as safetensors, each
checked against its digest. Comes in: ECGs as an array. Goes out: arrays by name. Research use only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class EcgModel(PythonModel):
    """Predicts phenotypes and diseases of 12-lead ECGs, as ``cardionets-client predict`` does."""

    def load_context(self, context: Any) -> None:
        """Open the model folder on the CPU."""
        import torch

        from cardionets_core.prediction.predictor import open_predictor
        from cardionets_core.training.model_folder import read_model_folder

        stored = read_model_folder(Path(context.artifacts["model"]))
        self._model = open_predictor(stored, device=torch.device("cpu"), without=("cine",))

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Predict for ECGs.

        Args:
            context: MLflow's.
            model_input: float32 [B, 12, T] in millivolts, leads I, II, III, aVR, aVL, aVF, V1 to V6.
            params: ``fs_hz``, samples per second.

        Returns:
            ``phenotypes`` [B, 82], ``diseases`` [B, 5], ``subtypes`` [B, 3] and ``refused`` [B], as
            ``PredictedArrays`` has them.
        """
        from cardionets_core.prediction.arrays import predict_arrays

        found = predict_arrays(self._model, np.asarray(model_input), fs_hz=float((params or {})["fs_hz"]))
        return {
            "phenotypes": found.phenotypes_BK,
            "diseases": found.diseases_BD,
            "subtypes": found.subtypes_BC,
            "refused": np.array(found.refused, dtype=np.str_),
        }


set_model(EcgModel())
