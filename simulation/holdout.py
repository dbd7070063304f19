"""Leave-one-site-out: each member measured with a federation that never saw it (external validity).

For each member the study runs again, in this process, on the other members alone, without the phases that
only draw cines. Its model is measured on the left-out site's test patients, beside the full federation on the
same patients. Pooled, every patient is measured once, with a model trained without the patient's hospital.
An AUROC is not pooled: it would rank patients by the scores of different models.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import QuorumNotMetError
from cardionets_core.evaluation.site_holdout import left_out_rows
from cardionets_core.tasks.base import Sums
from server.checkpoints import CheckpointStore
from simulation.arms import LEFT_OUT, open_cohorts, phase_ends, without
from simulation.cells.cell import CellResult, digest_of
from simulation.cells.sites import own_roster, own_sites
from simulation.events.schedule import Attack, Fault, LabelFlip
from simulation.scoring import MEMBERS, PHENOTYPE_TASKS, Score, measured_phases, score_of, site_sums
from simulation.screen import Screen

WITHOUT = "without:"
POOLED = "left-out"
"""The arm of all members together, each measured by the model of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutJob:
    """One left-out site with one seed.

    Attributes:
        site: who is left out.
        study: with the seed of the run.
        base: the study that was run; its seed draws the bootstrap.
        site_paths: documents of all sites.
        initial: folder of the weights that the study names as ``initial``.
        events: what happens on the way.
        seed: of the scenario, for what happens.
    """

    site: str
    study: Study
    base: Study
    site_paths: tuple[Path, ...]
    initial: Path | None = None
    events: tuple[Fault | Attack | LabelFlip, ...] = ()
    seed: int = 0

    @property
    def starts_anew(self) -> bool:
        """What a replaying site once sent is in no checkpoint."""
        return any(event.kind == "replay" for event in self.events)

    def digest(self, hospitals: str) -> str:
        """Of all that decides what is measured.

        Args:
            hospitals: digest of the hospitals' files.
        """
        return digest_of(
            work="without",
            site=self.site,
            study=self.study.to_json(),
            base=self.base.to_json(),
            hospitals=hospitals,
            sites=[path.parent.name for path in self.site_paths],
            events=[event.model_dump(mode="json") for event in self.events],
            seed=self.seed,
        )

    def run(self, folder: Path) -> CellResult:
        """Train without the site and measure there."""
        found = run_without(self, folder)
        arrays = {f"{task}/{name}": each for task, sums in found.sums.items() for name, each in sums.items()}
        content = {"site": found.site, "seed": found.seed, "trained": list(found.trained)}
        return CellResult(content=content, arrays=arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What a left-out site measured.

    Attributes:
        site: its name.
        seed: of the study.
        trained: the sites that trained the model.
        sums: task to metric sums; without those that its test patients, or the other sites, cannot serve.
    """

    site: str
    seed: int
    trained: tuple[str, ...]
    sums: Mapping[str, Sums]


def left_out_of(result: CellResult) -> LeftOut:
    """What ``HoldoutJob.run`` wrote."""
    sums: dict[str, dict[str, np.ndarray]] = {}
    for key, value in result.arrays.items():
        task, _, name = key.partition("/")
        sums.setdefault(task, {})[name] = value
    content = result.content
    return LeftOut(site=content["site"], seed=content["seed"], trained=tuple(content["trained"]), sums=sums)


def run_without(job: HoldoutJob, folder: Path) -> LeftOut:
    """Train without a site and measure there."""
    from simulation.flower import run_locally

    members, _ = open_cohorts(job.site_paths)
    trained = tuple(cohort.site for cohort in members if cohort.site != job.site)
    found = LeftOut(site=job.site, seed=job.study.seed, trained=trained, sums={})
    paths = [path for path in own_sites(job.site_paths, folder / "sites") if path.parent.name in trained]
    study = own_roster(study_without(job.study, job.site), paths)
    try:
        result = run_locally(
            study,
            paths,
            folder=folder,
            progress=Screen(sys.stderr, live=False).event,
            track=False,
            initial=job.initial,
            events=job.events,
            seed=job.seed,
        )
    except QuorumNotMetError:
        return found
    if any(row["status"] == "left-out" for entry in result["rounds"] for row in entry["sites"]):
        # A model that lacks a round of a site is not that of the others.
        return found
    models = phase_ends(CheckpointStore(folder / "checkpoints", study_digest=study.digest), study)
    here = [cohort for cohort in members if cohort.site == job.site]
    sums = {
        task.name: measured[job.site]
        for index, task in measured_phases(job.base)
        if (measured := site_sums(models[task.name], task, here, base=job.base, index=index))
    }
    return replace(found, sums=sums)


def study_without(study: Study, site: str) -> Study:
    """The study of the other sites.

    It has a name of its own: sites keep the moments of their optimisers by the study's digest, and those of
    the studies without each site may not be mixed.
    """
    mark = hashlib.sha256(site.encode()).hexdigest()[:8]
    sites = study.sites.model_copy(update={"minimum": 1})
    update = {"name": f"{study.name[:40]}-without-{mark}", "sites": sites}
    return without(study, LEFT_OUT).model_copy(update=update)


def holdout_scores(found: Sequence[LeftOut], base: Study) -> list[Score]:
    """Scores of ``without:SITE`` on the patients of the site, and of ``left-out`` on those of all members.

    The second is given for phenotypes alone: a pooled AUROC would compare the scores of different models.

    Raises:
        OrderRefusedError: a site was measured with a model that it trained.
    """
    scores: list[Score | None] = []
    for seed in dict.fromkeys(each.seed for each in found):
        of_seed = [each for each in found if each.seed == seed]
        for _, task in measured_phases(base):
            sums = {each.site: each.sums[task.name] for each in of_seed if task.name in each.sums}
            trained = {each.site: each.trained for each in of_seed}
            # It refuses a site that trained its own model; the scores add the bootstrap to its rows.
            for row in left_out_rows(sums, task.metrics, trained=trained):
                if not row.site and task.name not in PHENOTYPE_TASKS:
                    continue
                parts = {row.site: sums[row.site]} if row.site else sums
                arm = f"{WITHOUT}{row.site}" if row.site else POOLED
                scores.append(score_of(arm, task, parts, population=row.site or MEMBERS))
    return [score for score in scores if score is not None]
