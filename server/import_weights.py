"""Published weights become a model folder in the form that ``export_model`` writes.

One safetensors file a module and ``model.json`` with the digests, and beside them where the weights come from
and what became of every tensor. Parameters that the publisher does not have get the values that the registry
draws from the seed. The licence of weights is not in their file: whoever imports them has to look.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from cardionets_core.errors import UnknownNameError, UsageError
from cardionets_core.exchange.tensors import layout_of, model_digest, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.models.published import PUBLISHED, Translation
from cardionets_core.models.published.translation import shown
from cardionets_core.training.tensors import export_tensors, load_tensors
from server.checkpoints import SCHEMA_VERSION
from server.published_file import MAX_BYTES, PublishedFile, read_published_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What is asked for.

    Attributes:
        family: a key of ``PUBLISHED``.
        source: the downloaded file.
        preset: sizes of our modules.
        out: folder to make; it must not exist.
        adapt: let what does not fit be changed, as each family says.
        seed: of the parameters that the publisher does not have.
        licence: what the user found the licence of the weights to be; empty where not stated.
        max_bytes: larger files are refused.
    """

    family: str
    source: Path
    preset: str
    out: Path
    adapt: bool = False
    seed: int = 0
    licence: str = ""
    max_bytes: int = MAX_BYTES


def import_weights(request: ImportRequest) -> dict[str, Any]:
    """Read a published checkpoint and write a model folder.

    Returns:
        What ``model.json`` holds.

    Raises:
        UnknownNameError: no such family or preset.
        UsageError: the source is not there, or the folder is.
        CheckpointError: the file is refused, or does not fit the preset; nothing is written.
    """
    if request.family not in PUBLISHED:
        raise UnknownNameError(
            f"there is no family of published weights {request.family!r}",
            remedy=f"use one of: {', '.join(PUBLISHED)}",
        )
    if request.out.exists():
        raise UsageError(
            "the folder is there already", where=str(request.out), remedy="choose another folder for --out"
        )
    family = PUBLISHED[request.family]
    published = read_published_file(request.source, max_bytes=request.max_bytes)
    translation = family.translate(published.tensors, preset=request.preset, adapt=request.adapt)
    origin = _origin(request, published=published, translation=translation)
    return _write(request, translation=translation, origin=origin)


def summary_lines(content: dict[str, Any]) -> list[str]:
    """What an import did, for a terminal: what was imported, skipped and kept, and the licence to check.

    Args:
        content: of ``model.json``.
    """
    published = content["published"]
    lines = [f"{published['source_file']} read as {published['family']} at preset {published['preset']}"]
    for name, entry in content["modules"].items():
        count = sum(key.startswith(f"{name}.") for key in published["imported"])
        lines.append(f"  {name}: {count} parameters imported, digest {entry['digest']}")
    lines += [f"  skipped {shown(key)}: {reason}" for key, reason in published["skipped"].items()]
    lines += [
        f"  kept at initial values {name}: {reason}"
        for name, reason in published["kept_at_initial_values"].items()
    ]
    lines += [f"  note {note}" for note in published["notes"]]
    return [*lines, published["licence_note"]]


def _origin(request: ImportRequest, *, published: PublishedFile, translation: Translation) -> dict[str, Any]:
    """Where the weights come from, and what became of every tensor. No path: only the file's name."""
    family = PUBLISHED[request.family]
    return {
        "family": request.family,
        "origin": family.origin,
        "licence": request.licence or None,
        "licence_note": (
            f"Licence of the publisher's code: {family.code_licence}. That of the weights may be another and "
            "does not stand in their file: check it before they are used or handed on."
        ),
        "source_file": request.source.name,
        "source_sha256": published.sha256,
        "source_bytes": published.size_bytes,
        "source_entry": published.entry or None,
        "preset": request.preset,
        "adapt": request.adapt,
        "seed": request.seed,
        "notes": list(translation.notes),
        "imported": {name: list(keys) for name, keys in translation.imported.items()},
        "skipped": translation.skipped,
        "kept_at_initial_values": translation.kept,
    }


def _write(request: ImportRequest, *, translation: Translation, origin: dict[str, Any]) -> dict[str, Any]:
    """Make the folder under another name and rename it, so that a folder that is there is whole."""
    work = request.out.with_name(f".{request.out.name}.part")
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    try:
        modules = {
            name: _write_module(name, values, request=request, folder=work)
            for name, values in sorted(translation.modules.items())
        }
        content = {
            "schema_version": SCHEMA_VERSION,
            "study_digest": None,
            "model_digest": model_digest({name: entry["digest"] for name, entry in modules.items()}),
            "modules": modules,
            "published": origin,
        }
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (work / "model.json").write_text(text, encoding="utf-8")
        work.rename(request.out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return content


def _write_module(
    name: str, values: dict[str, np.ndarray], *, request: ImportRequest, folder: Path
) -> dict[str, Any]:
    """One module, complete: the published values over the initial ones."""
    module = build_module(name, request.preset, seed=request.seed)
    load_tensors(module, export_tensors(module) | values, where=request.source.name)
    tensors = export_tensors(module)
    path = folder / f"{name}.safetensors"
    save_file(tensors, path)
    layout = layout_of(tensors)
    return {
        "digest": module_digest(layout, pack(tensors)),
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": layout.size,
    }
