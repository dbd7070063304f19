"""The first model of a study, and the next one after each round (step 12 of the walk)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.exchange.tensors import Layout, layout_of, model_digest, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask, Task
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors
from server.checkpoints import Checkpoint
from server.round_store import RoundStore
from strategies import Strategy


def first_model(
    study: Study, tasks: Sequence[Task], *, work: Path
) -> tuple[dict[str, Path], dict[str, Layout]]:
    """Every module that any phase trains or reads, with weights that follow from the study's seed.

    Returns:
        Module to its raw float32 file in ``work``, and module to its layout.
    """
    files, layouts = {}, {}
    for name in sorted({name for task in tasks for name in (*task.trains, *task.reads)}):
        seed = derive_seed(study.seed, "initial", name)
        tensors = export_tensors(build_module(name, study.preset, seed=seed))
        layouts[name] = layout_of(tensors)
        files[name] = work / f"{name}.f32"
        pack(tensors).astype("<f4").tofile(files[name])
    return files, layouts


def combine_replies(
    task: Task, store: RoundStore, *, strategy: Strategy, checkpoint: Checkpoint, work: Path
) -> dict[str, Path]:
    """Write the next tensors of each module that somebody trained; the others keep theirs.

    Args:
        task: of the phase.
        store: the round's checked replies.
        strategy: how replies of a trained task are combined; sums of a closed-form task are added.
        checkpoint: the model that the sites started from.
        work: where the new files go.
    """
    if isinstance(task, ClosedFormTask):
        solved = task.solve(add_sums({site: store.sums(site) for site in store.sites()}))
        (module,) = task.trains
        target = work / f"{module}.f32"
        pack({name: solved[name] for name in checkpoint.layouts[module].names}).astype("<f4").tofile(target)
        return {module: target}
    files: dict[str, Path] = {}
    for module in task.trains:
        replies = store.module(module)
        if replies:
            files[module] = work / f"{module}.f32"
            strategy.combine(replies, current=checkpoint.path(module), target=files[module])
    return files


def digest_of(checkpoint: Checkpoint, files: Mapping[str, Path]) -> str:
    """The model's digest once ``files`` take the place of the checkpoint's."""
    digests = dict(checkpoint.digests)
    for module, path in files.items():
        if path != checkpoint.path(module):
            digests[module] = module_digest(checkpoint.layouts[module], np.fromfile(path, dtype="<f4"))
    return model_digest(digests)
