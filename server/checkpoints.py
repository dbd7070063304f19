"""The study's state on disk after every round (step 13 of the walk).

One folder a checkpoint: a raw float32 file a module, ``state.json`` with the digests and the history. During
a phase the server's average (``MODULE.average``) and what the strategy remembers (``MODULE.velocity``) lie
beside the modules. A folder is made under another name, fsynced and renamed, so one that is there is whole.
Modules that did not change are hard links to the checkpoint before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from cardionets_core.config.study import Study
from cardionets_core.errors import CheckpointError
from cardionets_core.exchange.tensors import Layout, model_digest, module_digest, unpack
from cardionets_core.training.model_folder import MODEL
from cardionets_core.training.model_folder import SCHEMA_VERSION as MODEL_SCHEMA_VERSION
from server.model_facts import model_facts

SCHEMA_VERSION = 1
"""Of ``state.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A point from which a study can go on.

    Attributes:
        folder: where its files lie.
        study_digest: of the study that made it.
        phase: index of the phase in which the next round is.
        round: rounds of that phase that are done.
        layouts: module to layout.
        digests: module to SHA-256.
        history: one entry a finished round, as in ``result.json``.
    """

    folder: Path
    study_digest: str
    phase: int
    round: int
    layouts: Mapping[str, Layout]
    digests: Mapping[str, str]
    history: list[dict[str, Any]]

    @property
    def model_digest(self) -> str:
        """One digest over all modules."""
        return model_digest(self.digests)

    def path(self, module: str) -> Path:
        """The file of a module: raw little-endian float32."""
        return self.folder / f"{module}.f32"

    def values(self, module: str) -> np.ndarray:
        """A module's flat float32 values."""
        return np.fromfile(self.path(module), dtype="<f4")

    def tensors(self, module: str) -> dict[str, np.ndarray]:
        """A module's named tensors."""
        return unpack(self.layouts[module], self.values(module))


class CheckpointStore:
    """All checkpoints of one run folder.

    Args:
        folder: made if absent.
        study_digest: only this study's checkpoints are read or written.
    """

    def __init__(self, folder: Path, *, study_digest: str) -> None:
        self.folder = folder
        self.study_digest = study_digest
        folder.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None.

        Raises:
            CheckpointError: it belongs to another study, or its bytes do not have its digests.
        """
        found = sorted(path for path in self.folder.iterdir() if (path / "state.json").exists())
        return self.read(found[-1]) if found else None

    def read(self, folder: Path) -> Checkpoint:
        """Read and verify one checkpoint; raises as ``latest`` does."""
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            checkpoint = Checkpoint(
                folder=folder,
                study_digest=state["study_digest"],
                phase=state["phase"],
                round=state["round"],
                layouts={name: Layout.from_json(text) for name, text in state["layouts"].items()},
                digests=state["digests"],
                history=state["history"],
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                "the checkpoint cannot be read",
                where=str(folder),
                remedy="remove this folder to go back one round",
            ) from error
        if checkpoint.study_digest != self.study_digest:
            raise CheckpointError(
                "the checkpoint belongs to another study",
                where=str(folder),
                remedy="choose an empty folder, or go back to the study that this folder was made with",
            )
        for name, digest in checkpoint.digests.items():
            path = checkpoint.path(name)
            if (
                not path.exists()
                or module_digest(checkpoint.layouts[name], checkpoint.values(name)) != digest
            ):
                raise CheckpointError(
                    f"the module {name} is torn",
                    where=str(path),
                    remedy="remove this folder to go back one round",
                )
        return checkpoint

    def write(
        self,
        *,
        phase: int,
        round_number: int,
        layouts: Mapping[str, Layout],
        files: Mapping[str, Path],
        history: list[dict[str, Any]],
        previous: Checkpoint | None,
    ) -> Checkpoint:
        """Write the next checkpoint.

        Args:
            phase: index of the phase.
            round_number: rounds of it that are done.
            layouts: of every module.
            files: module to a raw float32 file; files of the previous checkpoint are linked, others moved in.
            history: all finished rounds.
            previous: the checkpoint before this one, if any.
        """
        target = self.folder / f"{phase:02d}-{round_number:05d}"
        work = self.folder / f".{target.name}.part"
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        digests = {}
        for name, source in files.items():
            destination = work / f"{name}.f32"
            if previous is not None and source == previous.path(name):
                os.link(source, destination)
                digests[name] = previous.digests[name]
            else:
                shutil.move(source, destination)
                digests[name] = module_digest(layouts[name], np.fromfile(destination, dtype="<f4"))
        state = {
            "schema_version": SCHEMA_VERSION,
            "study_digest": self.study_digest,
            "phase": phase,
            "round": round_number,
            "layouts": {name: layout.to_json() for name, layout in layouts.items()},
            "digests": digests,
            "history": history,
        }
        with (work / "state.json").open("w", encoding="utf-8") as handle:
            json.dump(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return Checkpoint(
            folder=target,
            study_digest=self.study_digest,
            phase=phase,
            round=round_number,
            layouts=layouts,
            digests=digests,
            history=history,
        )

    def phase_end(self, phase: int, rounds: int) -> Checkpoint:
        """The checkpoint after the last round of a phase; phase ends are kept."""
        return self.read(self.folder / f"{phase:02d}-{rounds:05d}")

    def prune(self, *, keep: Checkpoint, phase_ends: set[str]) -> None:
        """Remove all checkpoints but the given one and the ends of phases (folder names)."""
        for folder in self.folder.iterdir():
            if folder != keep.folder and folder.name not in phase_ends and not folder.name.startswith("."):
                shutil.rmtree(folder)


def export_model(checkpoint: Checkpoint, folder: Path, *, study: Study) -> dict[str, Any]:
    """Write the model as one safetensors file a module and ``model.json``, from which it can be used.

    Args:
        checkpoint: the last one of the study.
        folder: made if absent.
        study: gives name, preset and phases.

    Returns:
        What ``model.json`` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    modules = {}
    for name in sorted(checkpoint.digests):
        path = folder / f"{name}.safetensors"
        save_file({key: np.ascontiguousarray(value) for key, value in checkpoint.tensors(name).items()}, path)
        modules[name] = {
            "digest": checkpoint.digests[name],
            "file": path.name,
            "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "parameters": checkpoint.layouts[name].size,
        }
    content = {
        "schema_version": MODEL_SCHEMA_VERSION,
        "study_digest": checkpoint.study_digest,
        "model_digest": checkpoint.model_digest,
        "modules": modules,
        **model_facts(study, checkpoint.history),
    }
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    (folder / MODEL).write_text(text + "\n", encoding="utf-8")
    return content
