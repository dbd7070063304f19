"""Weights that a study starts from: a folder of modules, each checked against the digest in the study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cardionets_core.errors import CheckpointError
from cardionets_core.exchange.tensors import layout_of, module_digest, pack
from cardionets_core.models import build_module

Tensors = dict[str, np.ndarray]


def given_modules(wanted: Mapping[str, str], folder: Path | None, *, preset: str) -> dict[str, Tensors]:
    """The modules that a study names, from a model's folder.

    Args:
        wanted: module to digest, the study's ``initial``.
        folder: holds ``MODULE.safetensors``; may be None where nothing is wanted.
        preset: of the study.

    Raises:
        CheckpointError: no folder was given, a module is not in it, or has another digest.
    """
    found: dict[str, Tensors] = {}
    for name, digest in sorted(wanted.items()):
        if folder is None:
            raise CheckpointError(
                f"the study starts {name} from given weights, but no folder was named",
                where="study: initial",
                remedy="pass --initial DIR, the folder that import-weights or an earlier run wrote",
            )
        path = folder / f"{name}.safetensors"
        try:
            # Refuses a name that is none of ours before it becomes part of a path.
            build_module(name, preset, seed=0, device="meta")
            tensors = load_file(path)
        # Of a type that numpy does not have, the library makes a KeyError or an AttributeError.
        except (OSError, SafetensorError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the weights of {name} cannot be read", where=str(path), remedy="give the right --initial"
            ) from error
        found[name] = _in_order(tensors, digest, path, preset=preset)
    return found


def _in_order(tensors: Tensors, digest: str, path: Path, *, preset: str) -> Tensors:
    # A safetensors file does not keep the order of the names, over which the digest is taken.
    names = [name for name, _ in build_module(path.stem, preset, seed=0, device="meta").named_parameters()]
    ordered = {name: tensors[name] for name in names if name in tensors}
    if set(ordered) != set(tensors) or module_digest(layout_of(ordered), pack(ordered)) != digest:
        raise CheckpointError(
            f"these are not the weights that the study names, at the preset {preset}",
            where=str(path),
            remedy="put the digest of model.json into the study's initial, or give the right --initial",
        )
    return ordered
