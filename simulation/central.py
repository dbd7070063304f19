"""The same study without a federation: plain local training on one cohort.

This is the baseline of every comparison (one site alone, or all data in one place), and the reference that a
federation of one site must equal bit for bit. It knows no Flower, no orders and no strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cardionets_core.config.study import Phase, Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.exchange.tensors import layout_of, model_digest, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask, GradientTask, MeasureTask, SiteView, task_of
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.local import round_statistics, train_locally
from cardionets_core.training.memory import InProcess
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors, load_tensors
from server.given_model import given_modules
from server.untrained import TARGETS

Modules = dict[str, torch.nn.Module]
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralModel:
    """What central training gives.

    Attributes:
        phase_ends: after each phase, the tensors of every module.
    """

    phase_ends: tuple[dict[str, Tensors], ...]

    @property
    def digest(self) -> str:
        """The digest that a federated run's ``model_digest`` is compared with."""
        last = self.phase_ends[-1]
        return model_digest(
            {name: module_digest(layout_of(value), pack(value)) for name, value in last.items()}
        )


def train_centrally(
    study: Study,
    cohort: Cohort,
    *,
    device: torch.device | None = None,
    initial: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CentralModel:
    """Run all phases of a study on one cohort.

    Phases that the cohort cannot serve, and those that only measure, leave their modules as they are, as in a
    federation.

    Args:
        study: its rounds, local epochs and seed are used as a site would.
        cohort: the data; its name seeds the order of rows, as a site's does.
        device: where to compute; the CPU by default.
        initial: folder of the weights that the study names as ``initial``.
        progress: called with task, round and rounds.

    Raises:
        CheckpointError: the study starts from given weights, and they are not in the folder.
    """
    device = device or torch.device("cpu")
    shape = shape_of(study.models)
    tasks = [task_of(phase, study) for phase in study.phases]
    names = sorted({name for task in tasks for name in (*task.trains, *task.reads)})
    modules: Modules = {
        name: build_module(name, study.models, seed=derive_seed(study.seed, "initial", name)).to(device)
        for name in names
    }
    for name, tensors in given_modules(study.initial, initial, preset=study.models).items():
        if name in modules:
            load_tensors(modules[name], tensors, where=f"initial: {name}")
    ends = []
    trained = set(study.initial)
    for index, (phase, task) in enumerate(zip(study.phases, tasks, strict=True)):
        trains = not isinstance(task, MeasureTask) and len(cohort.rows(task.needs, "train", shape)) > 0
        # As in a federation: the first role that the data can serve, and no random heads for targets.
        role = next((each for each in task.roles if len(cohort.rows(each.needs, "train", shape))), None)
        trains = trains and role is not None and not set(TARGETS) & set(task.reads) - trained
        used = {name: modules[name] for name in (*task.trains, *task.reads)}
        site = SiteView(cohort=cohort, shape=shape, device=device, kept=Kept(cohort=cohort.digest))
        memory = InProcess()
        averages = _Averages(phase, used, task.trains)
        for number in range(1, phase.rounds + 1 if trains else 1):
            if isinstance(task, ClosedFormTask):
                solved = task.solve(task.sums(used, site))
                load_tensors(modules[task.trains[0]], solved)
            else:
                seed = derive_seed(study.seed, "train", index, number, cohort.site)
                if isinstance(task, GradientTask) and task.shares:
                    sums = round_statistics(task, used, site, phase=phase, round_index=number, seed=seed)
                    site = replace(site, shared=sums)
                result = train_locally(
                    task, used, site, phase=phase, round_index=number, seed=seed, memory=memory, role=role
                )
                averages.add(result.steps)
                trained |= {name for name, count in result.samples_of.items() if count}
            if progress:
                progress(task.name, number, phase.rounds)
        averages.settle()
        ends.append({name: _copy(export_tensors(module)) for name, module in modules.items()})
    return CentralModel(phase_ends=tuple(ends))


class _Averages:
    """The moving average of a phase, as the server keeps it; does nothing where the phase has none."""

    def __init__(self, phase: Phase, modules: Modules, trains: Sequence[str]) -> None:
        self._decay = phase.ema_decay
        self._modules = modules
        names = trains if self._decay is not None else ()
        self._means = {name: export_tensors(modules[name]) for name in names}

    def add(self, steps: int) -> None:
        """Take in the weights after a round of some steps."""
        for name, means in self._means.items():
            kept = np.float64(self._decay or 0.0) ** float(steps)
            for key, value in export_tensors(self._modules[name]).items():
                means[key] = (kept * means[key] + (1.0 - kept) * value).astype(np.float32)

    def settle(self) -> None:
        """Put the averages into the modules."""
        for name, means in self._means.items():
            load_tensors(self._modules[name], means)


def _copy(tensors: Tensors) -> Tensors:
    return {name: value.copy() for name, value in tensors.items()}
