"""One arm of a comparison: trained, and measured on the test patients of members and of external sites.

Each arm runs in a process of its own. Nothing here prints or knows what other arms there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Phase, Study
from cardionets_core.data.cache import open_cache
from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import load_tensors
from server.checkpoints import CheckpointStore, export_model
from simulation.central import Tensors, train_centrally

MEASURED_TASKS = ("probe", "phenotype", "screening")
HEAD_TASKS = frozenset({*MEASURED_TASKS, "standardise", "prevalence"})
# What only draws cines, or measures what was drawn, says nothing of an arm's encoder.
LEFT_OUT = frozenset({"tokenizer", "generate", "memorisation", "fuse", "calibrate"})

Model = Mapping[str, Tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmJob:
    """One arm with one seed.

    Attributes:
        arm: ``federated`` (gives ``unaligned`` too), ``pooled`` or ``alone:SITE``.
        study: with the seed of the arm.
        base: the study that was run; its seed draws the bootstrap, so that arms are paired.
        site_paths: documents of all sites.
        folder: of the run.
    """

    arm: str
    study: Study
    base: Study
    site_paths: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one arm and seed reached.

    Attributes:
        arm: its name.
        task: whose metric it is.
        metric: the task's primary metric.
        population: ``members``, or the name of an external site.
        mean: the metric.
        replicates: of it, float64 [M].
        patients: that it was measured on.
    """

    arm: str
    task: str
    metric: str
    population: str
    mean: float
    replicates: np.ndarray
    patients: int


def run_arm(job: ArmJob) -> list[Score]:
    """Train an arm and measure it; tasks that its data cannot serve give no score."""
    torch.set_num_threads(1)
    members, external = _cohorts(job.site_paths)
    if job.arm == "federated":
        found = []
        for arm, models in _federated(job).items():
            found += _scores(arm, models, job, members=members, external=external)
        return found
    if job.arm == "pooled":
        study, cohort = pooled_study(job.study, members), concatenate(members, site="pooled")
    else:
        site = job.arm.removeprefix("alone:")
        study, cohort = job.study, next(cohort for cohort in members if cohort.site == site)
    study = without(study, LEFT_OUT)
    ends = train_centrally(study, cohort).phase_ends
    shape = shape_of(study.preset)
    models = {
        phase.task: end
        for phase, end in zip(study.phases, ends, strict=True)
        if phase.task in MEASURED_TASKS
        and len(cohort.rows(make_task(phase.task, phase.options).needs, "train", shape))
    }
    return _scores(job.arm, models, job, members=members, external=external)


def without(study: Study, tasks: frozenset[str]) -> Study:
    """The study without the phases of some tasks."""
    phases = tuple(phase for phase in study.phases if phase.task not in tasks)
    return study.model_copy(update={"phases": phases})


def pooled_study(study: Study, cohorts: Sequence[Cohort]) -> Study:
    """The study with the steps, and warm-up steps, of all sites that serve each phase.

    A phase that counts in epochs needs no change: an epoch of the pooled data is an epoch of every site.
    """
    shape = shape_of(study.preset)
    phases = []
    for phase in study.phases:
        if phase.local_steps is not None and phase.optimiser is not None:
            needs = make_task(phase.task, phase.options).needs
            sites = max(1, sum(len(cohort.rows(needs, "train", shape)) > 0 for cohort in cohorts))
            optimiser = phase.optimiser.model_copy(update={"warmup": phase.optimiser.warmup * sites})
            steps = {"local_steps": phase.local_steps * sites, "optimiser": optimiser}
            phase = phase.model_copy(update=steps)
        phases.append(phase)
    return study.model_copy(update={"phases": tuple(phases)})


def _cohorts(paths: Sequence[Path]) -> tuple[list[Cohort], list[Cohort]]:
    """Members and external sites, each in the order of their names."""
    members: list[Cohort] = []
    external: list[Cohort] = []
    for path in sorted(paths, key=lambda each: each.parent.name):
        config = read_site(path)
        (external if config.policy.role == "external" else members).append(open_cache(config, check="quick"))
    return members, external


def _federated(job: ArmJob) -> dict[str, dict[str, Model]]:
    """Arm to task to the model at the end of the task's phase."""
    folder = job.folder
    if job.study.seed != job.base.seed:
        folder = job.folder / "compare" / f"seed-{job.study.seed}"
        _run(job.study, job, folder)
    store = CheckpointStore(folder / "checkpoints", study_digest=job.study.digest)
    found = {"federated": _ends(store, job.study)}
    tasks = [phase.task for phase in job.study.phases]
    before = tasks.index("align") - 1 if "align" in tasks else -1
    if before >= 0:
        given = store.phase_end(before, job.study.phases[before].rounds)
        start = job.folder / "compare" / f"unaligned-{job.study.seed}"
        export_model(given, start / "start", study=job.study)
        heads = [p for p in job.study.phases[before + 1 :] if p.task in HEAD_TASKS]
        update = {"phases": tuple(heads), "initial": {"ecg_encoder": given.digests["ecg_encoder"]}}
        study = job.study.model_copy(update=update)
        _run(study, job, start, initial=start / "start")
        store = CheckpointStore(start / "checkpoints", study_digest=study.digest)
        found["unaligned"] = _ends(store, study)
    return found


def _run(study: Study, job: ArmJob, folder: Path, *, initial: Path | None = None) -> None:
    from simulation.flower import run_locally

    run_locally(
        study, job.site_paths, folder=folder, progress=lambda event: None, track=False, initial=initial
    )


def _ends(store: CheckpointStore, study: Study) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for index, phase in enumerate(study.phases):
        if phase.task in MEASURED_TASKS:
            end = store.phase_end(index, phase.rounds)
            found[phase.task] = {name: end.tensors(name) for name in end.digests}
    return found


def _scores(
    arm: str,
    models: Mapping[str, Model],
    job: ArmJob,
    *,
    members: Sequence[Cohort],
    external: Sequence[Cohort],
) -> list[Score]:
    found = []
    for index, phase in enumerate(job.base.phases):
        if phase.task not in models:
            continue
        for population, cohorts in (("members", members), *((c.site, [c]) for c in external)):
            score = _score(arm, models[phase.task], phase, cohorts, job=job, index=index)
            if score is not None:
                found.append(score | {"population": population})
    return [Score(**each) for each in found]


def _score(
    arm: str, model: Model, phase: Phase, cohorts: Sequence[Cohort], *, job: ArmJob, index: int
) -> dict | None:
    """The fields of a score but the population; None where no patient can be measured."""
    task, shape = make_task(phase.task, phase.options), shape_of(job.base.preset)
    modules = {}
    for name in (*task.trains, *task.reads):
        modules[name] = build_module(name, job.base.preset, seed=0)
        load_tensors(modules[name], model[name])
    task.prepare_modules(modules)
    parts = {}
    for cohort in cohorts:
        if len(cohort.rows(task.needs, "test", shape)):
            site = SiteView(
                cohort=cohort, shape=shape, device=torch.device("cpu"), kept=Kept(cohort=cohort.digest)
            )
            # The seed of the site's own measurement in the study: the same people are drawn in every arm.
            seed = derive_seed(job.base.seed, "evaluate", index, cohort.site)
            parts[cohort.site] = task.metric_sums(modules, site, split="test", seed=seed)
    if not parts:
        return None
    sums = add_sums(parts)
    metrics = task.metrics(sums)
    if task.primary not in metrics:
        return None
    return {
        "arm": arm,
        "task": task.name,
        "metric": task.primary,
        "mean": metrics[task.primary],
        "replicates": task.replicates(sums),
        "patients": int(sums["n_patients"][0]),
    }
