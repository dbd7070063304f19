"""Everything that a model says of some ECGs (``predict``), recording by recording.

Comes in: an open model and packed ECGs. Goes out: one ``Prediction`` each. Of a refused recording only the
reason is told. Prints and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cardionets_core.prediction.diseases import Screened, predict_diseases
from cardionets_core.prediction.phenotypes import PredictedPhenotype, predict_phenotypes
from cardionets_core.prediction.predictor import Predictor
from client.predict.cine import SyntheticCine, draw_cine
from client.predict.explain import Explained, Target, can_explain, explain
from client.predict.reading import Heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a model.

    Attributes:
        cine: whether to draw.
        seed: of the drawing.
        targets: to be explained.
    """

    cine: bool = False
    seed: int = 0
    targets: Sequence[Target] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of one recording; empty where the recording was refused.

    Attributes:
        heard: the recording.
        short: it is shorter than the window that the model was trained on.
        phenotypes: the trained ones; None where the model has no head for them.
        screened: probabilities; None where the model has no head for them.
        cine: None where not asked for, or where the model has no generator.
        explained: those of the targets that the model predicts.
    """

    heard: Heard
    short: bool = False
    phenotypes: list[PredictedPhenotype] | None = None
    screened: Screened | None = None
    cine: SyntheticCine | None = None
    explained: list[Explained] = field(default_factory=list)


def predict_one(model: Predictor, heard: Heard, asked: Asked) -> Prediction:
    """All that a model can say of one recording."""
    if heard.counts is None:
        return Prediction(heard=heard)
    feature_RD = model.feature(heard.counts)
    return Prediction(
        heard=heard,
        short=model.is_short(heard.counts),
        phenotypes=predict_phenotypes(model, feature_RD) if "phenotypes" in model.parts else None,
        screened=predict_diseases(model, feature_RD) if "screening" in model.parts else None,
        cine=draw_cine(model, model.condition(heard.counts), seed=asked.seed)
        if asked.cine and "cine" in model.parts
        else None,
        explained=[explain(model, heard.counts, t) for t in asked.targets if can_explain(model, t)],
    )
