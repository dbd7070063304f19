"""One round of training at one site (step 7 of the walk).

Comes in: prepared words (task, phase), modules, what the task sees of the site. Goes out: changed modules,
and counts. Nothing here knows of the wire, of files or of other sites.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.errors import ConfigError
from cardionets_core.tasks.base import GradientTask, Role, SiteView, Sums, Task
from cardionets_core.training.gradients import Gradients, PlainGradients, Scene, non_finite
from cardionets_core.training.memory import Memory, export_state, import_state
from cardionets_core.training.numerics import Numerics, compile_blocks
from cardionets_core.training.optimiser import build_optimiser
from cardionets_core.training.plan import plan_steps
from cardionets_core.training.private import PrivateGradients, PrivateSteps
from cardionets_core.training.pull import Distance, Pull, Pulled
from cardionets_core.training.schedule import learning_rate, peak_rate, step_progress, units_per_round
from cardionets_core.training.seeds import derive_seed

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """What one round of local training did.

    Attributes:
        samples: different rows that produced a gradient.
        samples_of: module to those of them that produced one of it; under privacy people.
        patients: different people among them.
        steps: optimiser steps.
        loss_mean: mean loss over all rows of all steps; 0 without steps.
        parts: means of the task's named values, likewise.
        way: how far a gradient of one at each step would have carried a weight; see ``pull.Distance``.
        normaliser: the way over the mean rate.
    """

    samples: int
    patients: int
    steps: int
    loss_mean: float
    samples_of: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    way: float = 0.0
    normaliser: float = 0.0


def train_locally(
    task: Task,
    modules: Mapping[str, nn.Module],
    site: SiteView,
    *,
    phase: Phase,
    round_index: int,
    seed: int,
    role: Role | None = None,
    numerics: Numerics | None = None,
    memory: Memory | None = None,
    pull: Pull | None = None,
    progress: Progress | None = None,
    private: PrivateSteps | None = None,
) -> LocalResult:
    """Train the role's modules for one round, in place.

    Each epoch shows every row at most once, with one random window. Order and windows follow from (seed,
    round, epoch), masks and dropout from (seed, round). On the CPU with a fixed number of threads, equal
    arguments give equal bytes; making batches ahead changes none.

    Args:
        task: a task with a loss.
        modules: by name, at least those that the task trains and reads; moved to the site's device.
        site: the site, with the round's shared statistics where the task asks for them.
        phase: rounds, local epochs (may be a fraction) or steps, batch size, optimiser.
        round_index: from 1; the learning rate follows from it.
        seed: differs between runs, phases and sites.
        role: how the site takes part; the fullest role by default.
        numerics: precision, compilation, prefetch; fp32 without either by default.
        memory: of the optimiser's state; used where the phase lets it persist, and needed there.
        pull: what the study's strategy adds to each gradient; nothing by default.
        private: makes the steps those of DP-SGD, over patients; their cost is accounted for elsewhere.
        progress: told (step from 1, steps, loss) after each step.

    Returns:
        Counts and means. A site without usable rows returns zeros and leaves the modules as they are.

    Raises:
        ConfigError: the task has no loss, the phase no optimiser, its batch is under the task's minimum, or a
            batch is to be accumulated although the loss couples its rows.
        NonFiniteLossError: a loss or a weight is not finite; the modules are then of no use.
    """
    if not isinstance(task, GradientTask):
        raise ConfigError(f"task {task.name} is solved from sums, not trained by steps", where="training")
    check_phase(task, phase)
    spec = phase.optimiser
    assert spec is not None  # check_phase refuses a phase without one
    role, numerics = role or task.roles[0], numerics or Numerics()
    _place(task, modules, site, role=role)
    rows = site.rows(role.row_needs, "train")
    # A private step sees one recording a patient.
    steps = steps_in_round(
        phase,
        rows=len(rows) if private is None else site.cohort.patients(rows),
        minimum_batch=task.minimum_batch,
    )
    if steps == 0:
        return LocalResult(samples=0, patients=0, steps=0, loss_mean=0.0)

    if numerics.compile:
        compile_blocks(modules.values())
    peak = peak_rate(spec, phase.batch_size)
    total = phase.rounds * units_per_round(phase)
    optimiser = build_optimiser(modules, role.trains, spec=spec, lr=peak)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    if spec.state == "persist":
        if memory is None:
            raise ConfigError("an optimiser that persists needs a place for its state", where="training")
        if (state_before := memory.recall(round_index)) is not None:
            import_state(optimiser, modules, role.trains, state=state_before)
    pull = pull or Pull()
    pulled, distance = Pulled(pull, modules, role.trains), Distance(spec, mu=pull.mu)
    noise_seed = derive_seed(seed, round_index, "noise")
    used = np.zeros(len(site.cohort.row_patient), dtype=bool)
    meter = _Meter()
    devices = [site.device] if site.device.type == "cuda" else []
    # Dropout draws from torch's default generator: forked and seeded here, so that the bytes repeat.
    with torch.random.fork_rng(devices=devices), ExitStack() as exits:
        torch.manual_seed(noise_seed)
        with numerics.autocast(site.device):
            state = task.open_round(modules, site, role)
        scene = Scene(
            task=task,
            modules=modules,
            site=site,
            role=role,
            phase=phase,
            round_index=round_index,
            seed=seed,
            numerics=numerics,
            state=state,
            generator=torch.Generator().manual_seed(noise_seed),
        )
        gradients: Gradients = PlainGradients(scene) if private is None else PrivateGradients(scene, private)
        exits.enter_context(gradients)
        for step in range(steps):
            rate = learning_rate(
                spec,
                peak=peak,
                progress=step_progress(phase, round_index=round_index, step=step, steps=steps),
                total=total,
            )
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            seen = gradients.take(step)
            pulled.add_proximal()
            if spec.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, spec.clip_norm)
            pulled.add_shift()
            optimiser.step()
            distance.step(rate)
            used[seen.rows] = True
            meter.add(seen.loss, seen.parts, rows=len(seen.rows))
            if progress is not None:
                progress(step + 1, steps, seen.loss)
    optimiser.zero_grad(set_to_none=True)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in trained):
        raise non_finite("a weight", task, round_index=round_index, step=steps - 1)
    if spec.state == "persist" and memory is not None:
        memory.keep(round_index, export_state(optimiser, modules, role.trains))
    # Who was drawn is secret: privately, all that could have been are told.
    served = np.flatnonzero(used) if private is None else rows
    behind = {name: task.rows_behind(name, site, served) for name in role.trains}
    count = len if private is None else site.cohort.patients
    return LocalResult(
        samples=count(served),
        samples_of={name: count(some) for name, some in behind.items()},
        patients=site.cohort.patients(served),
        steps=steps,
        loss_mean=meter.mean("loss"),
        parts={name: meter.mean(name) for name in meter.totals if name != "loss"},
        way=distance.way,
        normaliser=distance.normaliser,
    )


def round_statistics(
    task: GradientTask,
    modules: Mapping[str, nn.Module],
    site: SiteView,
    *,
    phase: Phase,
    round_index: int,
    seed: int,
    role: Role | None = None,
) -> Sums:
    """The statistics that a sharing task adds over the sites before the steps of a round.

    They are taken over the first epoch that ``train_locally`` will show with the same arguments, window by
    window, so that a round of one full batch shares exactly what its step sees. Arguments as there.
    """
    role = role or task.roles[0]
    _place(task, modules, site, role=role)
    plan = plan_steps(task, site, role=role, phase=phase, round_index=round_index, seed=seed, epochs=1)
    with torch.no_grad():
        batches = (step.batch.to(site.device) for step in plan)
        return task.statistics(modules, batches, smallest_cell=site.smallest_cell)


def check_phase(task: Task, phase: Phase) -> None:
    """Refuse a phase that its task cannot be trained with.

    Raises:
        ConfigError: says which key, and what to set it to.
    """
    where = "study: phases"
    if not isinstance(task, GradientTask):
        if phase.optimiser is not None or phase.ema_decay is not None:
            raise ConfigError(
                f"task {task.name} is solved from sums, so its phase takes no optimiser",
                where=where,
                remedy="remove optimiser, local_epochs, local_steps and ema_decay",
            )
        return
    if phase.optimiser is None:
        raise ConfigError(
            f"task {task.name} is trained, but its phase has no optimiser", where=where, remedy="add one"
        )
    if phase.batch_size < task.minimum_batch:
        raise ConfigError(
            f"batch_size {phase.batch_size} is under the {task.minimum_batch} that task {task.name} needs",
            where=f"{where}: batch_size",
            remedy=f"set it to {task.minimum_batch} or more",
        )
    if phase.accumulate > 1 and not task.decomposes:
        raise ConfigError(
            f"the loss of task {task.name} couples the rows of a batch: parts of it are not the whole",
            where=f"{where}: accumulate",
            remedy="set accumulate to 1, or choose a loss that decomposes",
        )


def _place(task: Task, modules: Mapping[str, nn.Module], site: SiteView, *, role: Role) -> None:
    for name in (*task.trains, *task.reads):
        if name in modules:
            modules[name].to(site.device)
    task.prepare_modules(modules, role)


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
        return self.totals[name] / self.rows if self.rows else 0.0
