"""One round of training at one site (step 7 of the walk).

Comes in: prepared words (task, phase), modules, the site's cohort. Goes out: changed modules, and counts.
Nothing here knows of the wire, of files or of other sites.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError, NonFiniteLossError
from cardionets_core.tasks.base import GradientTask, Task
from cardionets_core.training.optimiser import build_optimiser
from cardionets_core.training.schedule import learning_rate, peak_rate, step_progress, units_per_round
from cardionets_core.training.seeds import derive_seed

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """What one round of local training did.

    Attributes:
        samples: different rows that produced a gradient.
        patients: different people among them.
        steps: optimiser steps.
        loss_mean: mean loss over all rows of all steps; 0 without steps.
        parts: means of the task's named values, likewise.
    """

    samples: int
    patients: int
    steps: int
    loss_mean: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Rows of one step, and the generator that draws their windows."""

    rows: np.ndarray
    windows: np.random.Generator


def train_locally(
    task: Task,
    modules: Mapping[str, nn.Module],
    cohort: Cohort,
    *,
    phase: Phase,
    round_index: int,
    seed: int,
    shape: InputShape,
    device: torch.device | str,
    progress: Progress | None = None,
) -> LocalResult:
    """Train the task's modules for one round, in place.

    Each epoch shows every row at most once, with one random window. Order and windows follow from (seed,
    round, epoch), masks from (seed, round). The optimiser's state begins anew. On the CPU with a fixed number
    of threads, equal arguments give equal bytes.

    Args:
        task: a task with a loss.
        modules: by name, at least those that the task trains and reads; moved to ``device``.
        cohort: the site.
        phase: rounds, local epochs (may be a fraction) or steps, batch size, optimiser.
        round_index: from 1; the learning rate follows from it.
        seed: differs between runs, phases and sites.
        shape: sizes of the preset.
        device: where to train.
        progress: told (step from 1, steps, loss) after each step.

    Returns:
        Counts and means. A site without usable rows returns zeros and leaves the modules as they are.

    Raises:
        ConfigError: the task has no loss, the phase no optimiser, or its batch is under the task's minimum.
        NonFiniteLossError: a loss or a weight is not finite; the modules are then of no use.
    """
    if not isinstance(task, GradientTask):
        raise ConfigError(f"task {task.name} is solved from sums, not trained by steps", where="training")
    spec = phase.optimiser
    if spec is None:
        raise ConfigError(
            f"task {task.name} is trained, but its phase has no optimiser",
            where="study: phases",
            remedy="add one",
        )
    if phase.batch_size < task.minimum_batch:
        raise ConfigError(
            f"batch_size {phase.batch_size} is under the {task.minimum_batch} that task {task.name} needs",
            where="study: phases: batch_size",
            remedy=f"set it to {task.minimum_batch} or more",
        )
    place = torch.device(device)
    for name in (*task.trains, *task.reads):
        if name in modules:
            modules[name].to(place)
    task.prepare_modules(modules)
    rows = cohort.rows(task.needs, "train", shape)
    steps = steps_in_round(phase, rows=len(rows), minimum_batch=task.minimum_batch)
    if steps == 0:
        return LocalResult(samples=0, patients=0, steps=0, loss_mean=0.0)

    state = task.open_round(modules, cohort, shape=shape, device=place)
    peak = peak_rate(spec, phase.batch_size)
    total = phase.rounds * units_per_round(phase)
    optimiser = build_optimiser(modules, task.trains, spec=spec, lr=peak)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    noise = torch.Generator().manual_seed(derive_seed(seed, round_index, "noise"))
    used = np.zeros(len(cohort.row_patient), dtype=bool)
    meter = _Meter()
    plan = _plan_steps(
        rows, phase.batch_size, minimum_batch=task.minimum_batch, seed=seed, round_index=round_index
    )
    for step in range(steps):
        chosen = next(plan)
        batch = cohort.batch(chosen.rows, keys=task.needs, shape=shape, generator=chosen.windows).to(place)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(
                spec,
                peak=peak,
                progress=step_progress(phase, round_index=round_index, step=step, steps=steps),
                total=total,
            )
        optimiser.zero_grad(set_to_none=True)
        found = task.loss(modules, batch, state, generator=noise)
        loss = float(found.total.detach())
        if not math.isfinite(loss):
            raise _non_finite("the loss", task, round_index=round_index, step=step)
        found.total.backward()
        if spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(trained, spec.clip_norm)
        optimiser.step()
        used[chosen.rows] = True
        meter.add(loss, found.parts, rows=batch.size)
        if progress is not None:
            progress(step + 1, steps, loss)
    optimiser.zero_grad(set_to_none=True)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in trained):
        raise _non_finite("a weight", task, round_index=round_index, step=steps - 1)
    seen = np.flatnonzero(used)
    return LocalResult(
        samples=len(seen),
        patients=cohort.patients(seen),
        steps=steps,
        loss_mean=meter.mean("loss"),
        parts={name: meter.mean(name) for name in meter.totals if name != "loss"},
    )


def steps_in_round(phase: Phase, *, rows: int, minimum_batch: int) -> int:
    """Optimiser steps of one round: ``local_steps``, or the epochs' share of a site's batches, rounded up.

    A last batch under ``minimum_batch`` is dropped; a site with no other has no steps.
    """
    full, rest = divmod(rows, phase.batch_size)
    per_epoch = full + (1 if rest >= max(minimum_batch, 1) else 0)
    if per_epoch == 0:
        return 0
    if phase.local_steps is not None:
        return phase.local_steps
    if phase.local_epochs is None:
        raise ConfigError("a trained phase needs local_epochs or local_steps", where="study: phases")
    return max(1, math.ceil(phase.local_epochs * per_epoch - 1e-9))


def _plan_steps(
    rows: np.ndarray, batch_size: int, *, minimum_batch: int, seed: int, round_index: int
) -> Iterator[_Step]:
    """Batches without end: epoch after epoch, each in an order of its own."""
    epoch = 0
    while True:
        generator = np.random.default_rng(derive_seed(seed, round_index, epoch))
        order = generator.permutation(rows)
        for begin in range(0, len(order), batch_size):
            chunk = order[begin : begin + batch_size]
            if len(chunk) >= minimum_batch:
                yield _Step(rows=chunk, windows=generator)
        epoch += 1


class _Meter:
    """Means weighted by rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.totals: dict[str, float] = {"loss": 0.0}

    def add(self, loss: float, parts: Mapping[str, float], *, rows: int) -> None:
        self.rows += rows
        for name, value in (("loss", loss), *parts.items()):
            self.totals[name] = self.totals.get(name, 0.0) + value * rows

    def mean(self, name: str) -> float:
        return self.totals[name] / self.rows


def _non_finite(what: str, task: Task, *, round_index: int, step: int) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"{what} of task {task.name} is not finite",
        where=f"round {round_index}, step {step + 1}",
        remedy="lower the learning rate, lengthen the warm-up, or set clip_norm",
    )
