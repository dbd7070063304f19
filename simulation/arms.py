"""One arm of a comparison: trained, and measured on the test patients of members and of external sites.

Each arm runs in a process of its own. Nothing here prints or knows what other arms there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.cache import open_cache
from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.tasks import make_task
from cardionets_core.tasks.shapes import shape_of
from server.checkpoints import CheckpointStore, export_model
from simulation.central import train_centrally
from simulation.scoring import MEASURED_TASKS, MEMBERS, Model, Score, measured_phases, score_of, site_sums

HEAD_TASKS = frozenset({*MEASURED_TASKS, "standardise", "prevalence", "logistic"})
# What only draws cines, or measures what was drawn, says nothing of an arm's encoder.
LEFT_OUT = frozenset({"tokenizer", "generate", "memorisation", "fuse", "calibrate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmJob:
    """One arm with one seed.

    Attributes:
        arm: ``federated`` (gives ``unaligned`` too), ``pooled`` or ``alone:SITE``.
        study: with the seed of the arm.
        base: the study that was run; its seed draws the bootstrap, so that arms are paired.
        site_paths: documents of all sites.
        folder: of the run.
        by_site: whether ``federated`` is also measured on each member's patients alone.
        initial: folder of the weights that the study names as ``initial``.
        pooled: how the pooled arm gets what all sites compute together, see ``pooled_study``.
    """

    arm: str
    study: Study
    base: Study
    site_paths: tuple[Path, ...]
    folder: Path
    by_site: bool = False
    initial: Path | None = None
    pooled: Literal["steps", "batch"] = "steps"


def run_arm(job: ArmJob) -> list[Score]:
    """Train an arm and measure it; tasks that its data cannot serve give no score."""
    torch.set_num_threads(1)
    members, external = open_cohorts(job.site_paths)
    if job.arm == "federated":
        found = []
        for arm, models in _federated(job).items():
            found += _scores(arm, models, job, members=members, external=external)
        return found
    if job.arm == "pooled":
        study = pooled_study(job.study, members, by=job.pooled)
        cohort = concatenate(members, site="pooled")
    else:
        site = job.arm.removeprefix("alone:")
        study, cohort = job.study, next(cohort for cohort in members if cohort.site == site)
    study = without(study, LEFT_OUT)
    ends = train_centrally(study, cohort, initial=job.initial).phase_ends
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


def pooled_study(study: Study, cohorts: Sequence[Cohort], *, by: Literal["steps", "batch"]) -> Study:
    """The study with the steps (and warm-up steps), or with the batch, of all sites that serve each phase.

    A phase that counts in epochs needs no more steps: an epoch of the pooled data is an epoch of every site.
    """
    shape = shape_of(study.preset)
    phases = []
    for phase in study.phases:
        spec = phase.optimiser
        if spec is not None:
            needs = make_task(phase.task, phase.options).needs
            sites = max(1, sum(len(cohort.rows(needs, "train", shape)) > 0 for cohort in cohorts))
            if by == "batch":
                phase = phase.model_copy(update={"batch_size": phase.batch_size * sites})
            elif phase.local_steps is not None:
                optimiser = spec.model_copy(update={"warmup": spec.warmup * sites})
                steps = {"local_steps": phase.local_steps * sites, "optimiser": optimiser}
                phase = phase.model_copy(update=steps)
        phases.append(phase)
    return study.model_copy(update={"phases": tuple(phases)})


def open_cohorts(paths: Sequence[Path]) -> tuple[list[Cohort], list[Cohort]]:
    """Members and external sites, each in the order of their names."""
    members: list[Cohort] = []
    external: list[Cohort] = []
    for path in sorted(paths, key=lambda each: each.parent.name):
        config = read_site(path)
        (external if config.policy.role == "external" else members).append(open_cache(config, check="quick"))
    return members, external


def _federated(job: ArmJob) -> dict[str, dict[str, Model]]:
    """Arm to task to the model at the end of the task's phase."""
    federated, folder = job.study, job.folder
    if federated.seed != job.base.seed:
        federated = without(federated, LEFT_OUT)
        folder = job.folder / "compare" / f"seed-{federated.seed}"
        _run(federated, job, folder, initial=job.initial)
    store = CheckpointStore(folder / "checkpoints", study_digest=federated.digest)
    found = {"federated": phase_ends(store, federated)}
    tasks = [phase.task for phase in federated.phases]
    before = tasks.index("align") - 1 if "align" in tasks else -1
    if before >= 0:
        given = store.phase_end(before, federated.phases[before].rounds)
        start = job.folder / "compare" / f"unaligned-{federated.seed}"
        export_model(given, start / "start", study=federated)
        heads = [p for p in federated.phases[before + 1 :] if p.task in HEAD_TASKS]
        update = {"phases": tuple(heads), "initial": {"ecg_encoder": given.digests["ecg_encoder"]}}
        study = federated.model_copy(update=update)
        _run(study, job, start, initial=start / "start")
        store = CheckpointStore(start / "checkpoints", study_digest=study.digest)
        found["unaligned"] = phase_ends(store, study)
    return found


def _run(study: Study, job: ArmJob, folder: Path, *, initial: Path | None) -> None:
    from simulation.flower import run_locally

    run_locally(
        study, job.site_paths, folder=folder, progress=lambda event: None, track=False, initial=initial
    )


def phase_ends(store: CheckpointStore, study: Study) -> dict[str, Model]:
    """Measured task to the model at the end of its phase."""
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
    populations = {MEMBERS: [cohort.site for cohort in members]}
    populations |= {cohort.site: [cohort.site] for cohort in external}
    if job.by_site and arm == "federated":
        populations |= {cohort.site: [cohort.site] for cohort in members}
    found = []
    for index, task in measured_phases(job.base):
        if task.name not in models:
            continue
        sums = site_sums(models[task.name], task, [*members, *external], base=job.base, index=index)
        for population, sites in populations.items():
            parts = {site: sums[site] for site in sites if site in sums}
            score = score_of(arm, task, parts, population=population)
            if score is not None:
                found.append(score)
    return found
