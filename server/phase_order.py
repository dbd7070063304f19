"""Whether the phases of a study stand in an order that can work, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.tasks import TASKS, ClosedFormTask, Task, make_task
from cardionets_core.training.local import check_phase

# An encoder may be read as it was drawn, for comparison. These make no sense until they are trained.
TRAINED_FIRST = frozenset({"cmr_tokenizer", "cmr_generator", "diffusion_head", "screening_head"})


def tasks_of(study: Study) -> list[Task]:
    """The tasks of a study's phases, each fit for its phase and all in an order that can work.

    Raises:
        ConfigError: a task or an option does not exist, or what ``check_phase`` and ``check_order`` refuse.
    """
    tasks = [make_task(phase.task, phase.options) for phase in study.phases]
    for task, phase in zip(tasks, study.phases, strict=True):
        check_phase(task, phase)
    check_order(tasks, initial=study.initial)
    return tasks


def check_order(tasks: Sequence[Task], *, initial: Collection[str]) -> None:
    """Refuse a phase that reads what no phase before it, and no given weights, have made.

    Args:
        tasks: of the phases, in order.
        initial: modules that start from given weights.

    Raises:
        ConfigError: names the phase, the module and the task that makes it.
    """
    makers = {
        module: name
        for name, kind in TASKS.items()
        for module in make_task(name, {}).trains
        if issubclass(kind, ClosedFormTask) or module in TRAINED_FIRST
    }
    known = set(initial)
    for number, task in enumerate(tasks, start=1):
        for module in task.reads:
            if module in makers and module not in known:
                raise ConfigError(
                    f"phase {number} ({task.name}) reads {module}, which nothing before it makes",
                    where="study: phases",
                    remedy=f"put a phase of task {makers[module]} before it, or give its weights as initial",
                )
        known |= set(task.trains)
