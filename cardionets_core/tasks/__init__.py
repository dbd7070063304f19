"""Tasks: what can be a phase of a study. A new task is one class and one line here.

Where a part of the earlier generation asks for another class, that is one more line.
"""

from collections.abc import Mapping

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.generation import LATER, Parts
from cardionets_core.config.study import Phase, Study
from cardionets_core.errors import UnknownNameError
from cardionets_core.tasks.align import Align
from cardionets_core.tasks.base import (
    ClosedFormTask,
    GradientTask,
    MeasureTask,
    Role,
    Scalar,
    SiteView,
    Task,
    TaskLoss,
)
from cardionets_core.tasks.calibrate import Calibrate
from cardionets_core.tasks.fuse import Fuse
from cardionets_core.tasks.generate import Generate
from cardionets_core.tasks.latent_diffusion import GenerateByDiffusion
from cardionets_core.tasks.logistic import Logistic
from cardionets_core.tasks.masked_autoencoders import (
    CmrMaskedAutoencoder,
    EcgImageAutoencoder,
    EcgMaskedAutoencoder,
)
from cardionets_core.tasks.memorise import Memorisation
from cardionets_core.tasks.phenotype import Phenotype
from cardionets_core.tasks.prevalence import Prevalence
from cardionets_core.tasks.principal_task import PrincipalComponents
from cardionets_core.tasks.probe import Probe
from cardionets_core.tasks.screening import Screening
from cardionets_core.tasks.short_axis import SHORT_AXIS, VIEW, of_short_axis
from cardionets_core.tasks.standardise import Standardise
from cardionets_core.tasks.tokenizer import Tokenizer
from cardionets_core.tasks.two_view_align import TwoViewAlign
from cardionets_core.tasks.two_view_pretraining import TwoViewPretraining

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        EcgMaskedAutoencoder,
        CmrMaskedAutoencoder,
        PrincipalComponents,
        Align,
        Probe,
        Standardise,
        Phenotype,
        Prevalence,
        Logistic,
        Screening,
        Calibrate,
        Tokenizer,
        Generate,
        Memorisation,
        Fuse,
    )
}


EARLIER: dict[str, dict[str, type[Task]]] = {
    "ecg_encoder": {"ecg_mae": EcgImageAutoencoder},
    "cmr_encoder": {"cmr_mae": TwoViewPretraining, "align": TwoViewAlign},
    "cmr_generator": {"generate": GenerateByDiffusion},
}
"""Part to the tasks, by their names in ``TASKS``, that are of another class where it is the earlier one."""


def make_task(name: str, options: Mapping[str, Scalar], parts: Parts = LATER) -> Task:
    """The task of a phase.

    Args:
        name: a key of ``TASKS``.
        options: of the phase. A task that has the option ``view`` is with ``sax`` that of the short axis.
        parts: which generation each part of the model is of.

    Raises:
        UnknownNameError: there is no such task.
        ConfigError: an option is unknown or wrong.
    """
    if name not in TASKS:
        raise UnknownNameError(
            f"there is no task {name!r}{did_you_mean(name, TASKS)}",
            where="study: phases: task",
            remedy=f"use one of: {', '.join(TASKS)}",
        )
    kind = TASKS[name]
    for part in parts.earlier:
        kind = EARLIER[part].get(name, kind)
    if options.get(VIEW) == SHORT_AXIS and VIEW in kind.defaults:
        kind = of_short_axis(kind)
    return kind(options, parts)


def task_of(phase: Phase, study: Study) -> Task:
    """The task of one of a study's phases.

    Raises:
        UnknownNameError: there is no such task.
        ConfigError: an option is unknown or wrong.
    """
    return make_task(phase.task, phase.options, study.model_parts)


__all__ = [
    "EARLIER",
    "TASKS",
    "ClosedFormTask",
    "GradientTask",
    "MeasureTask",
    "Role",
    "Scalar",
    "SiteView",
    "Task",
    "TaskLoss",
    "make_task",
    "task_of",
]
