"""A task of a finished study with its modules as its phase left them, read from the run's checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cardionets_core.config.study import Study
from cardionets_core.models import build_module
from cardionets_core.tasks import Task, task_of
from cardionets_core.tasks.short_axis import LONG_AXIS, view_of
from cardionets_core.training.tensors import load_tensors
from server.checkpoints import CheckpointStore


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnd:
    """The end of a phase.

    Attributes:
        index: of the phase.
        task: of the phase, with its options.
        modules: all that the task trains and reads, in eval mode without gradients.
    """

    index: int
    task: Task
    modules: dict[str, nn.Module]


def phase_end(study: Study, name: str, *, folder: Path) -> PhaseEnd | None:
    """The end of the study's last phase of a task that is not of the short axis; None where it has none.

    Args:
        study: that was run to its end.
        name: of the task.
        folder: of the run.

    Raises:
        CheckpointError: the folder holds no such checkpoint.
    """
    indices = [
        index
        for index, phase in enumerate(study.phases)
        if phase.task == name and view_of(phase.options) == LONG_AXIS
    ]
    if not indices:
        return None
    phase = study.phases[indices[-1]]
    task = task_of(phase, study)
    end = CheckpointStore(folder / "checkpoints", study_digest=study.digest).phase_end(
        indices[-1], phase.rounds
    )
    modules = {}
    for module in (*task.trains, *task.reads):
        modules[module] = build_module(module, study.models, seed=0).eval().requires_grad_(False)
        load_tensors(modules[module], end.tensors(module))
    return PhaseEnd(index=indices[-1], task=task, modules=modules)
