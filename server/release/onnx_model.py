"""The two graphs of the ONNX export, as torch modules: a window to everything, and a feature to everything.

Comes in: an opened model. Goes out: modules whose outputs are what ``predict`` says: phenotypes in the units
of their fields, probabilities after calibration at the study's prevalence. Only what was trained is among
them, so that nobody reads the output of a column that no site had values of.

Legend: B windows or recordings, L leads, T samples, D width of the feature, K trained phenotypes, C trained
diseases, S subtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cardionets_core.data.phenotypes import PHENOTYPES, Phenotype
from cardionets_core.data.records import DISEASES, SUBTYPES
from cardionets_core.prediction.diseases import (
    HEAD as SCREENING_HEAD,
)
from cardionets_core.prediction.diseases import (
    calibration_of,
    prior_of,
    subtypes_trained,
    trained_diseases,
)
from cardionets_core.prediction.phenotypes import HEAD, PROBE, range_of, trained_columns
from cardionets_core.prediction.predictor import ENCODER, Predictor

FEATURE, PHENOTYPE, PROBABILITY, SUBTYPE = "feature", "phenotypes", "probabilities", "subtypes_given_cm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What the columns of the outputs are; empty where the model has no such output.

    Attributes:
        phenotypes: columns of ``phenotypes``.
        diseases: columns of ``probabilities``.
        subtypes: columns of ``subtypes_given_cm``.
    """

    phenotypes: tuple[Phenotype, ...]
    diseases: tuple[str, ...]
    subtypes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Outputs of the heads, in their order."""
        found = ((PHENOTYPE, self.phenotypes), (PROBABILITY, self.diseases), (SUBTYPE, self.subtypes))
        return [name for name, columns in found if columns]


class Heads(nn.Module):
    """Feature ``[B, D]`` to phenotypes ``[B, K]``, probabilities ``[B, C]``, subtypes ``[B, S]``.

    Args:
        model: with at least one head.
    """

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        self.outputs = outputs_of(model)
        self._parts: list[Callable[[torch.Tensor], torch.Tensor]] = []
        if self.outputs.phenotypes:
            self._add_phenotypes(model)
        if self.outputs.diseases or self.outputs.subtypes:
            self._add_screening(model)

    def forward(self, feature: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of ``outputs.names``."""
        return tuple(part(feature) for part in self._parts)

    def _add_phenotypes(self, model: Predictor) -> None:
        with_head = HEAD in model.parts["phenotypes"]
        self.phenotype_head = model.modules[HEAD if with_head else PROBE]
        mean_K, deviation_K = (
            range_of(model) if with_head else (np.zeros(len(PHENOTYPES)), np.ones(len(PHENOTYPES)))
        )
        column_K = np.flatnonzero(trained_columns(model))
        self._keep("phenotype_mean", mean_K[column_K])
        self._keep("phenotype_deviation", deviation_K[column_K])
        self.register_buffer("phenotype_column", torch.from_numpy(column_K))
        self._parts.append(self._phenotypes)

    def _add_screening(self, model: Predictor) -> None:
        self.screening_head = model.modules[SCREENING_HEAD]
        slope_D, intercept_D, _ = calibration_of(model)
        prior = prior_of(model)
        chosen = [DISEASES.index(name) for name in self.outputs.diseases]
        self.diseases = chosen
        self._keep("prior", prior.logit.double().cpu().numpy()[chosen])
        self._keep("slope", slope_D[chosen])
        self._keep("intercept", intercept_D[chosen])
        self._keep("log_share", prior.log_share.double().cpu().numpy())
        if self.outputs.diseases:
            self._parts.append(self._probabilities)
        if self.outputs.subtypes:
            self._parts.append(self._subtypes)

    def _phenotypes(self, feature: torch.Tensor) -> torch.Tensor:
        chosen_BK = self.phenotype_head(feature).index_select(1, self.get_buffer("phenotype_column"))
        return chosen_BK * self.get_buffer("phenotype_deviation") + self.get_buffer("phenotype_mean")

    def _probabilities(self, feature: torch.Tensor) -> torch.Tensor:
        logit_BC = self.screening_head(feature)[:, self.diseases] + self.get_buffer("prior")
        return torch.sigmoid(logit_BC * self.get_buffer("slope") + self.get_buffer("intercept"))

    def _subtypes(self, feature: torch.Tensor) -> torch.Tensor:
        logit_BS = self.screening_head(feature)[:, len(DISEASES) :] + self.get_buffer("log_share")
        return torch.softmax(logit_BS, dim=1)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.float32)))


class Windows(nn.Module):
    """Windows ``[B, L, T]`` to the feature ``[B, D]`` and the outputs of ``Heads`` for each window alone.

    Args:
        model: opened.
        heads: of the same model.
    """

    def __init__(self, model: Predictor, heads: Heads) -> None:
        super().__init__()
        self.encoder = model.modules[ENCODER]
        self.heads = heads

    def forward(self, ecg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Feature, then the outputs of the heads."""
        feature_BD = self.encoder(ecg)
        return (feature_BD, *self.heads(feature_BD))


def outputs_of(model: Predictor) -> Outputs:
    """Columns of what the model was trained to say."""
    phenotypes: tuple[Phenotype, ...] = ()
    diseases: tuple[str, ...] = ()
    subtypes: tuple[str, ...] = ()
    if "phenotypes" in model.parts:
        phenotypes = tuple(PHENOTYPES[k] for k in np.flatnonzero(trained_columns(model)))
    if "screening" in model.parts:
        diseases = tuple(DISEASES[d] for d in trained_diseases(model))
        subtypes = SUBTYPES if subtypes_trained(model) else ()
    return Outputs(phenotypes=phenotypes, diseases=diseases, subtypes=subtypes)
