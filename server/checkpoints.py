"""The study's state on disk after every round (step 13 of the walk).

One folder a checkpoint: a raw float32 file a module, ``state.json`` with the digests and the history. During
a phase the server's average (``MODULE.average``) and what the strategy remembers (``MODULE.velocity``) lie
beside the modules. A folder is made under another name, fsynced and renamed, so one that is there is whole;
one that a failing disk has torn is passed over, which costs its round. Modules that did not change are hard
links to the checkpoint before. The last ones, the ends of phases and the best of each phase are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from cardionets_core.config.study import Study
from cardionets_core.durable import on_disk, place_folder, sync_file, write_json, write_whole
from cardionets_core.errors import CheckpointError, PeerError
from cardionets_core.exchange.tensors import Layout, module_digest
from cardionets_core.plain_json import read_json
from cardionets_core.training.model_folder import MODEL
from cardionets_core.training.model_folder import SCHEMA_VERSION as MODEL_SCHEMA_VERSION
from server.best_rounds import best_rounds
from server.checkpoint import LARGEST_STATE_BYTES, STATE, Checkpoint, checkpoint_in
from server.model_facts import model_facts

SCHEMA_VERSION = 1
"""Of ``state.json`` and ``best.json``."""
BEST = "best.json"


class CheckpointStore:
    """All checkpoints of one run folder.

    Args:
        folder: made if absent.
        study_digest: only this study's checkpoints are read or written.
    """

    def __init__(self, folder: Path, *, study_digest: str) -> None:
        self.folder = folder
        self.study_digest = study_digest
        self.torn: list[str] = []
        with on_disk(folder, keeps="nothing was begun"):
            folder.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None; torn ones that were passed over are named in ``torn``.

        Raises:
            CheckpointError: it belongs to another study, or all that are there are torn.
        """
        self.torn = []
        errors: list[CheckpointError] = []
        for folder in sorted(self._folders(), reverse=True):
            try:
                return self.read(folder)
            except CheckpointError as error:
                if self._is_foreign(folder):
                    raise
                errors.append(error)
                self.torn.append(folder.name)
        if errors:
            raise errors[0]
        return None

    def read(self, folder: Path) -> Checkpoint:
        """Read and verify one checkpoint.

        Raises:
            CheckpointError: it belongs to another study, or its bytes do not have its digests.
        """
        try:
            checkpoint = checkpoint_in(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, PeerError) as error:
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
            if not _has_digest(checkpoint, name, digest):
                raise CheckpointError(
                    f"the module {name} is torn",
                    where=str(path),
                    remedy="remove this folder to go back one round",
                )
        return checkpoint

    def _is_foreign(self, folder: Path) -> bool:
        try:
            state = read_json(folder / STATE, most_bytes=LARGEST_STATE_BYTES, finite=False)
            return bool(state["study_digest"] != self.study_digest)
        except (OSError, ValueError, KeyError, TypeError):
            return False

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

        Raises:
            StorageFailedError: the disk did not take it; the checkpoints before it are whole.
        """
        target = self.folder / folder_name(phase, round_number)
        work = self.folder / f".{target.name}.part"
        with on_disk(self.folder, keeps="the checkpoints before are whole"):
            try:
                digests = self._fill(work, files, layouts=layouts, previous=previous)
                state = {
                    "schema_version": SCHEMA_VERSION,
                    "study_digest": self.study_digest,
                    "phase": phase,
                    "round": round_number,
                    "layouts": {name: layout.to_json() for name, layout in layouts.items()},
                    "digests": digests,
                    "history": history,
                }
                write_whole(work / STATE, json.dumps(state).encode())
                place_folder(work, target)
            except OSError:
                shutil.rmtree(work, ignore_errors=True)
                raise
        return Checkpoint(
            folder=target,
            study_digest=self.study_digest,
            phase=phase,
            round=round_number,
            layouts=layouts,
            digests=digests,
            history=history,
        )

    def _fill(
        self,
        work: Path,
        files: Mapping[str, Path],
        *,
        layouts: Mapping[str, Layout],
        previous: Checkpoint | None,
    ) -> dict[str, str]:
        """Link or move all module files into an empty folder; returns their digests."""
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
                sync_file(destination)
                digests[name] = module_digest(layouts[name], np.fromfile(destination, dtype="<f4"))
        return digests

    def phase_end(self, phase: int, rounds: int) -> Checkpoint:
        """The checkpoint after the last round of a phase; phase ends are kept."""
        return self.read(self.folder / folder_name(phase, rounds))

    def prune(self, *, keep: Checkpoint, rounds: Sequence[int], keep_last: int = 1, keep_best: bool) -> None:
        """Remove what is not to be kept, and write ``best.json``.

        Kept are the given checkpoint, the last ones, the ends of phases, and the best round of each phase
        by its primary metric: ``best.json`` names them.

        Args:
            keep: the newest checkpoint.
            rounds: of each phase of the study.
            keep_last: how many of the newest are kept.
            keep_best: whether the best of each phase are kept.

        Raises:
            StorageFailedError: the disk failed; no checkpoint that is to be kept is touched.
        """
        best = best_rounds(keep.history) if keep_best else {}
        names = {phase: folder_name(phase, found["round"]) for phase, found in best.items()}
        ends = {folder_name(phase, number) for phase, number in enumerate(rounds)}
        ordered = sorted(self._folders())
        newest = [folder for folder in ordered if folder <= keep.folder][-keep_last:]
        with on_disk(self.folder, keeps="the checkpoints are whole"):
            content = {str(phase): {**found, "folder": names[phase]} for phase, found in sorted(best.items())}
            write_json(self.folder / BEST, {"schema_version": SCHEMA_VERSION, "phases": content})
            for folder in self.folder.iterdir():
                spared = folder in newest or folder.name in {keep.folder.name, *ends, *names.values()}
                if folder.is_dir() and not spared:
                    shutil.rmtree(folder)

    def _folders(self) -> list[Path]:
        """Folders of checkpoints, whole or torn; what is being written has another name."""
        return [path for path in self.folder.iterdir() if re.fullmatch(r"\d{2}-\d{5,6}", path.name)]


def folder_name(phase: int, round_number: int) -> str:
    """The name of a checkpoint's folder; names sort as rounds follow."""
    return f"{phase:02d}-{round_number:05d}"


def _has_digest(checkpoint: Checkpoint, name: str, digest: str) -> bool:
    try:
        # Looked at before it is read: another file may lie there, of any size.
        if checkpoint.path(name).stat().st_size != 4 * checkpoint.layouts[name].size:
            return False
        return module_digest(checkpoint.layouts[name], checkpoint.values(name)) == digest
    except (OSError, ValueError, KeyError):
        return False


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
