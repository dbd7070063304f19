"""The whole of ``predict``: from paths and a model folder to the result, recording by recording.

Comes in: what the command line asks. Goes out: the JSON-ready content, and files where they are asked for. A
recording that is refused does not stop the others. Of a cine nothing stays in memory once it is written.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardionets_core.data.sources.local_files import Part
from cardionets_core.errors import DataError
from cardionets_core.prediction.predictor import device_named, open_predictor
from cardionets_core.training.model_folder import read_model_folder
from client.predict.content import prediction_content, recording_content
from client.predict.explain import target_named
from client.predict.output import Output
from client.predict.page import pictures_of, render_page
from client.predict.prediction import Asked, predict_one
from client.predict.reading import hear, named_recordings

STAGE = "predicting"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        paths: files or folders.
        model: a model folder.
        output: what is written.
        cine: whether to draw, where the model can and somebody would see it.
        seed: of the drawing.
        explain: phenotypes and diseases to be explained.
        declared: what the site's document says of its folders.
        device: as ``device_named`` takes it.
    """

    paths: Sequence[Path]
    model: Path
    output: Output = field(default_factory=Output)
    cine: bool = True
    seed: int = 0
    explain: Sequence[str] = ()
    declared: Sequence[Part] = ()
    device: str = "cpu"


def predict_all(
    request: Request, *, progress: Progress, today: datetime.date | None = None
) -> dict[str, Any]:
    """Predict for every recording that is named.

    Args:
        request: what is asked for.
        progress: told the stage, and how many of all recordings are done.
        today: date on the page; default today.

    Returns:
        The JSON-ready content.

    Raises:
        UsageError: something would be written over, or cannot be explained.
        DataError: there is no ECG under the paths.
        CheckpointError: the model cannot be read, or predicts nothing.
        ConfigError: there is no such device.
    """
    targets = [target_named(name) for name in dict.fromkeys(request.explain)]
    named = named_recordings(request.paths)
    if not named:
        raise DataError(
            "there is no ECG under these paths", remedy="`cardionets-client inspect` says what is there"
        )
    request.output.check(named)
    draws = request.cine and request.output.shows_cines
    model = open_predictor(
        read_model_folder(request.model),
        device=device_named(request.device),
        without=() if draws else ("cine",),
    )
    asked = Asked(cine=draws, seed=request.seed, targets=targets)
    recordings, pictures = [], []
    progress(STAGE, 0, len(named))
    for place, heard in enumerate(hear(named, declared=request.declared), start=1):
        prediction = predict_one(model, heard, asked)
        files = request.output.write_cine(heard.number, prediction.cine)
        recordings.append(recording_content(prediction, files=files))
        if request.output.page is not None:
            pictures.append(pictures_of(recordings[-1], prediction))
        progress(STAGE, place, len(named))
    content = prediction_content(model, recordings, targets=targets)
    if request.output.page is not None:
        made_on = (today or datetime.date.today()).isoformat()
        request.output.write_page(render_page(content, pictures, made_on=made_on))
    return content


def refused(content: dict[str, Any]) -> int:
    """How many recordings were refused."""
    return sum(found["verdict"] == "refused" for found in content["recordings"])
