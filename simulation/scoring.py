"""Measures a trained arm on test patients, and turns what it measured into scores that can be compared.

Comes in: the modules of a measured task and cohorts. Goes out: metric sums by site, and scores of
populations, which are sums added over sites. The bootstrap draws the people that the study's own measurement
drew, so that all arms are paired.

Legend: M replicates, K phenotypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.regression import measured_columns, r_squared
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, Task, task_of
from cardionets_core.tasks.base import Sums
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.phenotype_sums import REPLICATED
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import load_tensors
from simulation.central import Tensors

MEMBERS = "members"
PHENOTYPE_TASKS = ("phenotype", "probe")
MEASURED_TASKS = (*PHENOTYPE_TASKS, "screening")

Model = Mapping[str, Tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """R2 of each phenotype.

    Attributes:
        r2_K: NaN in a column that is not measured.
        replicates_MK: of it.
    """

    r2_K: np.ndarray
    replicates_MK: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one arm and seed reached.

    Attributes:
        arm: its name.
        task: whose metric it is.
        metric: the task's primary metric.
        population: ``members``, or the name of a site.
        mean: the metric.
        replicates: of it, float64 [M].
        patients: that it was measured on.
        columns: of a task that predicts phenotypes.
    """

    arm: str
    task: str
    metric: str
    population: str
    mean: float
    replicates: np.ndarray
    patients: int
    columns: Columns | None = None


def measured_phases(study: Study) -> list[tuple[int, Task]]:
    """Index and task of each phase by which arms are compared."""
    return [
        (index, task_of(phase, study))
        for index, phase in enumerate(study.phases)
        if phase.task in MEASURED_TASKS
    ]


def site_sums(
    model: Model, task: Task, cohorts: Sequence[Cohort], *, base: Study, index: int
) -> dict[str, Sums]:
    """Metric sums of the sites that have test patients for the task.

    Args:
        model: tensors of the modules that the task trains and reads.
        task: of the phase.
        cohorts: sites.
        base: the study that was run; its seed draws the people of the bootstrap.
        index: of the phase in that study.
    """
    shape = shape_of(base.models)
    modules = {}
    for name in (*task.trains, *task.reads):
        modules[name] = build_module(name, base.models, seed=0)
        load_tensors(modules[name], model[name])
    task.prepare_modules(modules)
    found = {}
    for cohort in cohorts:
        if len(cohort.rows(task.needs, "test", shape)):
            site = SiteView(
                cohort=cohort, shape=shape, device=torch.device("cpu"), kept=Kept(cohort=cohort.digest)
            )
            # The seed of the site's own measurement in the study: the same people are drawn in every arm.
            seed = derive_seed(base.seed, "evaluate", index, cohort.site)
            found[cohort.site] = task.metric_sums(modules, site, split="test", seed=seed)
    return found


def score_of(arm: str, task: Task, parts: Mapping[str, Sums], *, population: str) -> Score | None:
    """The score of some sites together; None where no patient was measured.

    Args:
        arm: its name.
        task: whose sums these are.
        parts: site to its sums.
        population: name of the sites together.
    """
    if not parts:
        return None
    sums = add_sums(parts)
    metrics = task.metrics(sums)
    if task.primary not in metrics:
        return None
    return Score(
        arm=arm,
        task=task.name,
        metric=task.primary,
        population=population,
        mean=metrics[task.primary],
        replicates=task.replicates(sums),
        patients=int(sums["n_patients"][0]),
        columns=_columns(sums) if task.name in PHENOTYPE_TASKS else None,
    )


def _columns(sums: Mapping[str, np.ndarray]) -> Columns:
    measured_K = measured_columns(sums)
    replicates_MK = r_squared({name: sums[f"boot_{name}"] for name in REPLICATED})
    return Columns(
        r2_K=np.where(measured_K, r_squared(sums), np.nan),
        replicates_MK=np.where(measured_K, replicates_MK, np.nan),
    )
