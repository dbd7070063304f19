"""A model as a run hands it out: a safetensors file a module and ``model.json`` (after step 13 of the walk).

Comes in: a folder. Goes out: what the model is, what was measured on it, and its modules, ready to be used.
Every file is checked against its digest before anything of it is believed. Writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cardionets_core.errors import CheckpointError, OrderRefusedError, UnknownNameError
from cardionets_core.exchange.tensors import layout_of, model_digest, module_digest, pack
from cardionets_core.models import build_module, get_preset
from cardionets_core.plain_json import read_json
from cardionets_core.training.tensors import load_tensors

MODEL = "model.json"
SCHEMA_VERSION = 3
"""Of ``model.json`` as a run writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a phase measured on the test patients of all members together.

    Attributes:
        phase: index of the phase.
        task: its name.
        current: no later phase trained a module that was measured, so the numbers hold for this model.
        metrics: name to value.
    """

    phase: int
    task: str
    current: bool
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model on disk whose files have their digests.

    Attributes:
        folder: where it lies.
        preset: of its modules.
        study: name of the study that made it.
        study_digest: of that study.
        model_digest: over all modules.
        digests: module to digest.
        drawing: how its study drew the cines that it measured; 0 is the preset's.
        measured: one a phase that has test metrics, in order.
    """

    folder: Path
    preset: str
    study: str
    study_digest: str
    model_digest: str
    digests: Mapping[str, str]
    drawing: Mapping[str, float]
    measured: tuple[Measured, ...]

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Which of some modules are not in it."""
        return [name for name in names if name not in self.digests]

    def metrics_of(self, task: str) -> Mapping[str, float]:
        """Test metrics of the last phase of a task that hold for this model; empty where there are none."""
        found = [each.metrics for each in self.measured if each.task == task and each.current]
        return found[-1] if found else {}

    def load(self, name: str, *, device: torch.device) -> torch.nn.Module:
        """One module in eval mode, without gradients.

        Raises:
            CheckpointError: its tensors do not fit the preset, or have another digest.
        """
        path = _file_of(self.folder, name)
        tensors = _tensors(path)
        module = build_module(name, self.preset, seed=0)
        try:
            load_tensors(module, tensors, where=str(path))
        except OrderRefusedError as error:
            raise CheckpointError(error.what, where=error.where, remedy=error.remedy) from error
        # A safetensors file does not keep the order of the names, over which the digest is taken.
        ordered = {key: np.ascontiguousarray(tensors[key]) for key, _ in module.named_parameters()}
        if module_digest(layout_of(ordered), pack(ordered)) != self.digests[name]:
            raise _torn(path)
        return module.to(device).eval().requires_grad_(False)


def read_model_folder(folder: Path) -> StoredModel:
    """Read ``model.json`` and check every file that it names.

    Raises:
        CheckpointError: there is no model, it is of another version, or a file is absent or was changed.
    """
    path = folder / MODEL
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "there is no model that can be read", where=str(path), remedy="name the folder model of a run"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"the model is of schema version {version}, not {SCHEMA_VERSION}",
            where=str(path),
            remedy="name a folder that a run of this version wrote; the same run again writes it anew",
        )
    try:
        stored = _stored(folder, content)
        files = {name: str(entry["file_sha256"]) for name, entry in content["modules"].items()}
        get_preset(stored.preset)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UnknownNameError) as error:
        raise CheckpointError(
            "the model's description is not one of ours",
            where=str(path),
            remedy="ask the coordinator for the folder again",
        ) from error
    for name, expected in files.items():
        if not name.isidentifier() or _sha256(_file_of(folder, name)) != expected:
            raise _torn(_file_of(folder, name))
    if model_digest(stored.digests) != stored.model_digest:
        raise _torn(path)
    return stored


def _stored(folder: Path, content: Mapping[str, Any]) -> StoredModel:
    measured = tuple(
        Measured(
            phase=int(each["phase"]),
            task=str(each["task"]),
            current=each["current"] is True,
            metrics={str(name): float(value) for name, value in each["test"].items() if value is not None},
        )
        for each in content["evaluation"]
    )
    return StoredModel(
        folder=folder,
        preset=str(content["preset"]),
        study=str(content["study"]["name"]),
        study_digest=str(content["study"]["digest"]),
        model_digest=str(content["model_digest"]),
        digests={str(name): str(entry["digest"]) for name, entry in content["modules"].items()},
        drawing={str(name): float(value) for name, value in content["drawing"].items()},
        measured=measured,
    )


def _file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    # Of a type that numpy does not have, the library makes a KeyError or an AttributeError.
    except (OSError, SafetensorError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise _torn(path) from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _torn(path: Path) -> CheckpointError:
    return CheckpointError(
        "the model's file is absent, or is not the one that its digest names",
        where=str(path),
        remedy="copy the whole folder again; nothing of it was used",
    )
