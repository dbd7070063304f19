"""Tasks: what can be a phase of a study. A new task is one class and one line here."""

from collections.abc import Mapping

from cardionets_core.config.faults import did_you_mean
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
from cardionets_core.tasks.logistic import Logistic
from cardionets_core.tasks.masked_autoencoders import CmrMaskedAutoencoder, EcgMaskedAutoencoder
from cardionets_core.tasks.memorise import Memorisation
from cardionets_core.tasks.phenotype import Phenotype
from cardionets_core.tasks.prevalence import Prevalence
from cardionets_core.tasks.principal_task import PrincipalComponents
from cardionets_core.tasks.probe import Probe
from cardionets_core.tasks.screening import Screening
from cardionets_core.tasks.standardise import Standardise
from cardionets_core.tasks.tokenizer import Tokenizer

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


def make_task(name: str, options: Mapping[str, Scalar]) -> Task:
    """The task of a phase.

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
    return TASKS[name](options)


__all__ = [
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
]
