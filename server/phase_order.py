"""Whether the phases of a study stand in an order that can work, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.models import get_preset
from cardionets_core.tasks import TASKS, ClosedFormTask, Task, make_task, task_of
from cardionets_core.tasks.drawing import DRAWING_OPTIONS, drawing_of
from cardionets_core.tasks.short_axis import SHORT_AXIS, VIEW, short_axis_name
from cardionets_core.training.local import check_phase
from cardionets_core.training.private_plan import check_private

# An encoder may be read as it was drawn, for comparison. These make no sense until they are trained.
_TRAINED_FIRST = ("cmr_tokenizer", "cmr_generator", "diffusion_head", "cmr_projection", "screening_head")
TRAINED_FIRST = frozenset({*_TRAINED_FIRST, *map(short_axis_name, _TRAINED_FIRST)})
SOLVED_FOR = {
    "cmr_principal": "cmr_encoder",
    short_axis_name("cmr_principal"): short_axis_name("cmr_encoder"),
}
"""Module that means nothing for any other weights of another, and that other."""


def tasks_of(study: Study) -> list[Task]:
    """The tasks of a study's phases, each fit for its phase and all in an order that can work.

    Raises:
        ConfigError: a task or an option does not exist, or what ``check_phase``, ``check_private`` and
            ``check_order`` refuse.
    """
    tasks = [task_of(phase, study) for phase in study.phases]
    for task, phase in zip(tasks, study.phases, strict=True):
        check_phase(task, phase)
        if set(DRAWING_OPTIONS) <= set(task.options):
            drawing_of(task.options, get_preset(study.models))
    # Before the order: what privacy forbids is not to be mended by one more phase.
    check_private(study, tasks)
    check_order(tasks, initial=study.initial, parts=study.model_parts)
    return tasks


def check_order(tasks: Sequence[Task], *, initial: Collection[str], parts: Parts = LATER) -> None:
    """Refuse a phase that reads what nothing before it has made, or what was made for other weights.

    Args:
        tasks: of the phases, in order.
        initial: modules that start from given weights.
        parts: which generation each part of the model is of.

    Raises:
        ConfigError: names the phase, the module and the task that makes it.
    """
    makers = _makers(parts)
    known, stale = set(initial), set[str]()
    for number, task in enumerate(tasks, start=1):
        for module in task.reads:
            if module in makers and module not in known:
                raise ConfigError(
                    f"phase {number} ({task.name}) reads {module}, which nothing before it makes",
                    where="study: phases",
                    remedy=f"put a phase of {makers[module]} before it, or give its weights as initial",
                )
            if module in stale:
                encoder = SOLVED_FOR[module]
                raise ConfigError(
                    f"phase {number} ({task.name}) reads {module}, made before {encoder} was trained: "
                    "it means nothing for the new weights",
                    where="study: phases",
                    remedy=f"put a phase of {makers[module]} between the two, or train {encoder} no more",
                )
        known |= set(task.trains)
        stale |= {module for module, encoder in SOLVED_FOR.items() if encoder in task.trains}
        stale -= set(task.trains)


def _makers(parts: Parts) -> dict[str, str]:
    """Module that must have been made before it is read, to the task that makes it, for people."""
    found: dict[str, str] = {}
    for name, kind in TASKS.items():
        views = {f"task {name}": make_task(name, {}, parts)}
        if VIEW in views[f"task {name}"].defaults:
            words = f"task {name} with options: {{{VIEW}: {SHORT_AXIS}}}"
            views[words] = make_task(name, {VIEW: SHORT_AXIS}, parts)
        for words, task in views.items():
            if "contrast" in task.options:
                words += ", its contrast not off,"
            made = [m for m in task.trains if issubclass(kind, ClosedFormTask) or m in TRAINED_FIRST]
            found |= dict.fromkeys(made, words)
    return found
