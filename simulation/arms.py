"""One arm of a comparison: trained, and measured on the test patients of members and of external sites.

Each arm runs in a process of its own. Nothing here prints or knows what other arms there are.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.cache import open_cache
from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.plain_json import read_json
from cardionets_core.tasks import task_of
from cardionets_core.tasks.shapes import shape_of
from server.app import RESULT
from server.checkpoints import CheckpointStore, export_model
from simulation.cells.cell import CellResult, digest_of
from simulation.cells.scores import result_of_scores
from simulation.cells.sites import own_roster, own_sites
from simulation.central import train_centrally
from simulation.events.schedule import Attack, Fault, LabelFlip
from simulation.events.table import event_rows
from simulation.scoring import MEASURED_TASKS, MEMBERS, Model, Score, measured_phases, score_of, site_sums
from simulation.screen import Screen

HEAD_TASKS = frozenset({*MEASURED_TASKS, "standardise", "prevalence", "logistic"})
# What only draws cines, or measures what was drawn, says nothing of an arm's encoder.
LEFT_OUT = frozenset({"tokenizer", "generate", "memorisation", "fuse", "calibrate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmJob:
    """One arm with one seed.

    Attributes:
        arm: ``federated``, ``pooled`` or ``alone:SITE``.
        names: what is measured, ``federated``, ``unaligned`` or the arm itself, to its name in the table.
        study: with the seed and the strategy of the arm.
        base: the study that is compared; its seed draws the bootstrap, so that arms are paired.
        site_paths: documents of all sites.
        by_site: whether ``federated`` is also measured on each member's patients alone.
        initial: folder of the weights that the study names as ``initial``.
        pooled: how the pooled arm gets what all sites compute together, see ``pooled_study``.
        trained: folder where the study was run already.
        events: what happens on the way in a federation.
        seed: of the scenario, for what happens.
    """

    arm: str
    names: Mapping[str, str]
    study: Study
    base: Study
    site_paths: tuple[Path, ...]
    by_site: bool = False
    initial: Path | None = None
    pooled: Literal["steps", "batch"] = "steps"
    trained: Path | None = None
    events: tuple[Fault | Attack | LabelFlip, ...] = ()
    seed: int = 0

    @property
    def starts_anew(self) -> bool:
        """Central training has no checkpoints; what a replaying site once sent is in no checkpoint."""
        return self.arm != "federated" or any(event.kind == "replay" for event in self.events)

    def digest(self, hospitals: str) -> str:
        """Of all that decides the scores.

        Args:
            hospitals: digest of the hospitals' files.
        """
        return digest_of(
            work="arm",
            arm=self.arm,
            names=dict(self.names),
            study=self.study.to_json(),
            base=self.base.to_json(),
            hospitals=hospitals,
            sites=[path.parent.name for path in self.site_paths],
            by_site=self.by_site,
            pooled=self.pooled,
            trained=str(self.trained),
            events=[event.model_dump(mode="json") for event in self.events]
            if self.arm == "federated"
            else [],
            seed=self.seed,
        )

    def run(self, folder: Path) -> CellResult:
        """Train and measure; checkpoints of an earlier try in the folder are taken up."""
        result = result_of_scores(run_arm(self, folder))
        result.content["left_out"] = {
            name: event_rows(read_json(folder / arm / RESULT), self.events)
            for arm, name in self.names.items()
            if (folder / arm / RESULT).is_file()
        }
        return result


def run_arm(job: ArmJob, folder: Path) -> list[Score]:
    """Train an arm and measure it; tasks that its data cannot serve give no score."""
    members, external = open_cohorts(job.site_paths)
    if job.arm == "federated":
        found = []
        for arm, models in _federated(job, folder).items():
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
    shape = shape_of(study.models)
    models = {
        phase.task: end
        for phase, end in zip(study.phases, ends, strict=True)
        if phase.task in MEASURED_TASKS and len(cohort.rows(task_of(phase, study).needs, "train", shape))
    }
    return _scores(job.names[job.arm], models, job, members=members, external=external)


def without(study: Study, tasks: frozenset[str]) -> Study:
    """The study without the phases of some tasks."""
    phases = tuple(phase for phase in study.phases if phase.task not in tasks)
    return study.model_copy(update={"phases": phases})


def pooled_study(study: Study, cohorts: Sequence[Cohort], *, by: Literal["steps", "batch"]) -> Study:
    """The study with the steps (and warm-up steps), or with the batch, of all sites that serve each phase.

    A phase that counts in epochs needs no more steps: an epoch of the pooled data is an epoch of every site.
    """
    shape = shape_of(study.models)
    phases = []
    for phase in study.phases:
        spec = phase.optimiser
        if spec is not None:
            needs = task_of(phase, study).needs
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


def _federated(job: ArmJob, folder: Path) -> dict[str, dict[str, Model]]:
    """Name in the table to task to the model at the end of the task's phase."""
    paths = own_sites(job.site_paths, folder / "sites")
    if job.trained is not None:
        federated, trained = job.study, job.trained
    else:
        federated, trained = own_roster(without(job.study, LEFT_OUT), paths), folder / "federated"
        _run(federated, job, trained, paths=paths, initial=job.initial)
    store = CheckpointStore(trained / "checkpoints", study_digest=federated.digest)
    found = {}
    if "federated" in job.names:
        found[job.names["federated"]] = phase_ends(store, federated)
    tasks = [phase.task for phase in federated.phases]
    before = tasks.index("align") - 1 if "align" in tasks else -1
    if before >= 0 and "unaligned" in job.names:
        given = store.phase_end(before, federated.phases[before].rounds)
        start = folder / "unaligned"
        if (start / "start").exists():
            # Of a try that was broken off; written again from the same checkpoint.
            shutil.rmtree(start / "start")
        export_model(given, start / "start", study=federated)
        heads = [p for p in federated.phases[before + 1 :] if p.task in HEAD_TASKS]
        update = {"phases": tuple(heads), "initial": {"ecg_encoder": given.digests["ecg_encoder"]}}
        study = own_roster(federated.model_copy(update=update), paths)
        _run(study, job, start, paths=paths, initial=start / "start")
        store = CheckpointStore(start / "checkpoints", study_digest=study.digest)
        found[job.names["unaligned"]] = phase_ends(store, study)
    return found


def _run(study: Study, job: ArmJob, folder: Path, *, paths: Sequence[Path], initial: Path | None) -> None:
    from simulation.flower import run_locally

    run_locally(
        study,
        paths,
        folder=folder,
        progress=Screen(sys.stderr, live=False).event,
        track=False,
        initial=initial,
        events=job.events,
        seed=job.seed,
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
    if job.by_site and arm == job.names.get("federated"):
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
