"""The first model of a study, and the next one after each round (step 12 of the walk)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import ReplyRefusedError
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.exchange.tensors import Layout, layout_of, model_digest, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask, Task
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors, load_tensors
from server.checkpoints import Checkpoint
from server.given_model import given_modules
from server.round_store import RoundStore
from strategies import RoundFacts, Strategy
from strategies.strategy import FIRST_ROUND

AVERAGE = ".average"


def first_model(
    study: Study, tasks: Sequence[Task], *, work: Path, initial: Path | None = None
) -> tuple[dict[str, Path], dict[str, Layout]]:
    """Every module that any phase trains or reads, with weights that follow from the study's seed.

    Args:
        study: names by digest the modules that start from given weights.
        tasks: of its phases.
        work: where the files go.
        initial: folder of a model that holds those weights, as ``export_model`` or ``import-weights`` write.

    Returns:
        Module to its raw float32 file in ``work``, and module to its layout.

    Raises:
        CheckpointError: the study names weights that the folder does not hold.
    """
    given = given_modules(study.initial, initial, preset=study.models)
    files, layouts = {}, {}
    for name in sorted({name for task in tasks for name in (*task.trains, *task.reads)}):
        module = build_module(name, study.models, seed=derive_seed(study.seed, "initial", name))
        if name in given:
            load_tensors(module, given[name], where=f"--initial: {name}")
        tensors = export_tensors(module)
        layouts[name] = layout_of(tensors)
        files[name] = work / f"{name}.f32"
        pack(tensors).astype("<f4").tofile(files[name])
    return files, layouts


def combine_replies(
    task: Task,
    store: RoundStore,
    *,
    strategy: Strategy,
    checkpoint: Checkpoint,
    work: Path,
    facts: RoundFacts = FIRST_ROUND,
) -> dict[str, Path]:
    """Write the next tensors of each module that somebody trained; the others keep theirs.

    Args:
        task: of the phase.
        store: the round's checked replies.
        strategy: how replies of a trained task are combined; sums of a closed-form task are added.
        checkpoint: the model that the sites started from.
        work: where the new files go.
        facts: of the round.

    Returns:
        Module to file, and ``MODULE.STATE`` to file for what the strategy remembers.
    """
    if isinstance(task, ClosedFormTask):
        (module,) = task.trains
        target = work / f"{module}.f32"
        sums = add_sums({site: store.sums(site) for site in store.sites()})
        _solution(task, sums, checkpoint.layouts[module].names).astype("<f4").tofile(target)
        return {module: target}
    files: dict[str, Path] = {}
    for module in task.trains:
        replies = store.module(module)
        if replies:
            files[module] = work / f"{module}.f32"
            remembered = {state: f"{module}.{state}" for state in strategy.state_names}
            after = {state: work / f"{name}.f32" for state, name in remembered.items()}
            strategy.combine(
                replies,
                current=checkpoint.path(module),
                target=files[module],
                before={s: checkpoint.path(n) for s, n in remembered.items() if n in checkpoint.digests},
                after=after,
                facts=facts,
            )
            files |= {remembered[state]: path for state, path in after.items()}
    return files


def _solution(task: ClosedFormTask, sums: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The flat float32 values that added sums lead to.

    Raises:
        ReplyRefusedError: they lead to none; each by itself is sound, so no site can be named.
    """
    try:
        with np.errstate(all="ignore"):
            solved = task.solve(dict(sums))
            flat = pack({name: solved[name] for name in names})
        fits = bool(np.isfinite(flat).all())
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        fits = False
    if not fits:
        raise ReplyRefusedError(
            f"the sites' sums lead to no solution of {task.name}",
            where="reply",
            remedy="compare the sites' counts in the run folder; leave out the one that does not fit, resume",
        )
    return flat


def average_files(
    task: Task,
    files: Mapping[str, Path],
    *,
    checkpoint: Checkpoint,
    decay: float,
    steps: float,
    work: Path,
) -> dict[str, Path]:
    """The server's moving average of the trained modules after a round (SCIENCE 5.4): ``NAME.average``.

    ``average <- d * average + (1 - d) * new`` with ``d = decay ** steps``; before the first round the average
    is the module that the phase began with.

    Args:
        task: of the phase.
        files: newer files of modules than the checkpoint's.
        checkpoint: the model before this round.
        decay: a step.
        steps: mean local steps of the sites that trained.
        work: where the new files go.
    """
    kept = np.float64(decay) ** steps
    averages: dict[str, Path] = {}
    for module in task.trains:
        name = module + AVERAGE
        before = checkpoint.path(name if name in checkpoint.digests else module)
        after = files.get(module) or checkpoint.path(module)
        averages[name] = work / f"{name}.f32"
        mean = kept * np.fromfile(before, dtype="<f4") + (1.0 - kept) * np.fromfile(after, dtype="<f4")
        mean.astype("<f4").tofile(averages[name])
    return averages


def measured_files(task: Task, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files that stand for the model where it is measured: averages in place of their modules."""
    return {**files, **{m: files[m + AVERAGE] for m in task.trains if m + AVERAGE in files}}


def settle(files: Mapping[str, Path]) -> dict[str, Path]:
    """At a phase's end each average takes the place of its module, and what a strategy remembered goes."""
    found = {name: path for name, path in files.items() if "." not in name}
    return {name: files.get(name + AVERAGE, path) for name, path in found.items()}


def layouts_of(checkpoint: Checkpoint, files: Mapping[str, Path]) -> dict[str, Layout]:
    """The layout of every file; an average, and what a strategy remembers, is laid out as its module."""
    return {name: checkpoint.layouts[name.partition(".")[0]] for name in files}


def digest_of(checkpoint: Checkpoint, files: Mapping[str, Path]) -> str:
    """The digest of the model that consists of ``files``."""
    digests = {}
    for name, layout in layouts_of(checkpoint, files).items():
        if name in checkpoint.digests and files[name] == checkpoint.path(name):
            digests[name] = checkpoint.digests[name]
        else:
            digests[name] = module_digest(layout, np.fromfile(files[name], dtype="<f4"))
    return model_digest(digests)
