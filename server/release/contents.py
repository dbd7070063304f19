"""Every file of a release, written into an empty folder, in an order that depends on nothing but the run.

Comes in: a finished run and what of it is to be released. Goes out: the folder without its signature. Nothing
here judges whether it may be released.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cardionets_core.exchange.tensors import model_digest
from cardionets_core.prediction.phenotypes import STANDARDISER
from cardionets_core.prediction.predictor import ENCODER, PARTS, open_predictor
from cardionets_core.release.layout import (
    CALIBRATION,
    CARD,
    CHECKSUMS,
    LICENCE,
    MODEL,
    ONNX,
    PAGE,
    PREPROCESSING,
    RELEASE,
    SIGNATURE,
    STUDY,
)
from cardionets_core.release.layout import STANDARDISER as STANDARDISER_JSON
from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS, view_of
from cardionets_core.training.model_folder import MODEL as MODEL_JSON
from cardionets_core.training.model_folder import read_model_folder
from server.bundle.contents import licence_text
from server.release.card import ReleaseFacts, card_of
from server.release.card_page import card_page
from server.release.numbers import calibration_json, standardiser_of
from server.release.onnx_export import HEADS_FILE, WINDOW_FILE, Exported, export_onnx
from server.release.preprocessing import preprocessing_of
from server.release.run_folder import FinishedRun

SCHEMA_VERSION = 1
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What of a run is released.

    Attributes:
        modules: their names, in order.
        left_out: modules of the run that are not released.
        without_generator: these were left out because the memorisation test stands against them.
        signed_by: who will sign, in words; empty for nobody.
        epsilon: site to epsilon that it says it has spent.
    """

    modules: tuple[str, ...]
    left_out: tuple[str, ...]
    without_generator: bool
    signed_by: str
    epsilon: Mapping[str, float]


def write_contents(run: FinishedRun, chosen: Chosen, folder: Path) -> dict[str, Any]:
    """Write all files but checksums and signature.

    Args:
        run: to be released.
        chosen: of it.
        folder: empty.

    Returns:
        The content of ``release.json``.

    Raises:
        CheckpointError: a module is torn, or the model predicts nothing.
        OnnxDiffersError: the export does not compute what torch computes.
    """
    model_json = _write_model(run, chosen.modules, folder / MODEL)
    model = open_predictor(read_model_folder(folder / MODEL), device=_CPU, without=("cine",))
    exported = export_onnx(model, folder / ONNX)
    facts = ReleaseFacts(
        modules={name: entry["parameters"] for name, entry in model_json["modules"].items()},
        model_digest=model_json["model_digest"],
        left_out=chosen.left_out,
        onnx=exported.files,
        signed_by=chosen.signed_by,
        without_generator=chosen.without_generator,
        samples=model.preset.ecg_samples,
        rate_hz=model.preset.ecg_rate_hz,
        epsilon=chosen.epsilon,
    )
    card = card_of(run.result, release=facts)
    (folder / STUDY).write_text(run.study.to_json() + "\n", encoding="utf-8")
    (folder / LICENCE).write_bytes(licence_text())
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / PAGE).write_text(card_page(card), encoding="utf-8")
    content = _description(run, chosen, model_json, exported)
    for name, value in (
        (PREPROCESSING, preprocessing_of(model.preset, exported.outputs)),
        (STANDARDISER_JSON, standardiser_of(model)),
        (CALIBRATION, calibration_json(model)),
        (RELEASE, content),
    ):
        if value is not None:
            _write_json(folder / name, value)
    return content


def file_names(modules: Sequence[str], *, signed: bool) -> list[str]:
    """Names of all files of a release of these modules, sorted.

    Args:
        modules: that are released.
        signed: somebody signs.
    """
    screens = {ENCODER, *PARTS["screening"][0]} <= set(modules)
    return sorted(
        [
            *(f"{MODEL}/{name}.safetensors" for name in modules),
            *(f"{ONNX}/{name}" for name in (WINDOW_FILE, HEADS_FILE)),
            *(f"{MODEL}/{MODEL_JSON}", STUDY, LICENCE, CARD, PAGE, PREPROCESSING, RELEASE, CHECKSUMS),
            *([STANDARDISER_JSON] if STANDARDISER in modules else []),
            *([CALIBRATION] if screens else []),
            *([SIGNATURE] if signed else []),
        ]
    )


def _write_model(run: FinishedRun, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Copy the modules, each loaded once so that its numbers are held against its digest."""
    folder.mkdir()
    for name in names:
        run.model.load(name, device=_CPU)
        source = run.model.folder / f"{name}.safetensors"
        (folder / source.name).write_bytes(source.read_bytes())
    digests = {name: run.model.digests[name] for name in names}
    content = {
        **run.model_json,
        "modules": {name: run.model_json["modules"][name] for name in names},
        "model_digest": model_digest(digests),
        "evaluation": [
            each for each in run.model_json["evaluation"] if set(each.get("modules", ())) <= set(names)
        ],
    }
    _write_json(folder / MODEL_JSON, content)
    return content


def _description(
    run: FinishedRun, chosen: Chosen, model_json: Mapping[str, Any], exported: Exported
) -> dict[str, Any]:
    memorisation: dict[str, Mapping[str, float]] = {}
    for each in run.model.measured:
        if each.task == "memorisation":
            memorisation[view_of(run.study.phases[each.phase].options)] = dict(each.metrics)
    return {
        "schema_version": SCHEMA_VERSION,
        "use": "research only; not for diagnosis",
        "study": run.study.name,
        "study_digest": run.study.digest,
        "preset": run.study.models,
        "run_model_digest": run.model.model_digest,
        "model_digest": model_json["model_digest"],
        "modules": {name: run.model.digests[name] for name in chosen.modules},
        "left_out": list(chosen.left_out),
        "without_generator": chosen.without_generator,
        "memorisation": memorisation.get(LONG_AXIS),
        "memorisation_sax": memorisation.get(SHORT_AXIS),
        "privacy": run.study.privacy.model_dump(mode="json"),
        "secure_aggregation": run.study.secure_aggregation is not None,
        "epsilon_by_site": dict(chosen.epsilon),
        "onnx_largest_relative_difference": exported.files,
        "versions": run.result["versions"],
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
