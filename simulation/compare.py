"""What the federation is compared with, on the same held-out patients (arms of ``comparison``).

``federated`` is the study's own encoder; ``unaligned`` is the same encoder before the align phase;
``pooled`` is the same study on all data in one place, with as many
steps as all sites together make; ``alone:SITE`` is one site with nobody else. Every arm
fits the same linear probe on the training patients that it may see and is measured on the test patients of
all sites. Bootstrap draws are shared, so differences between arms are paired.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.cache import open_cache
from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.evaluation.bootstrap import percentile_interval
from cardionets_core.evaluation.regression import measured_columns, r_squared
from cardionets_core.tasks import make_task
from cardionets_core.tasks.shapes import shape_of
from server.checkpoints import CheckpointStore
from simulation.central import Tensors, probe_sums, train_centrally
from simulation.screen import Screen

METRIC = "r2_mean"
REPLICATED = ("n", "Sy", "Syy", "See")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One arm with one seed, to be done in a process of its own."""

    arm: str
    study: Study
    base: Study
    site_paths: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    """Mean R2 of one arm and seed, as a point and as bootstrap replicates."""

    arm: str
    mean: float
    replicates: np.ndarray
    patients: int


def compare(
    study: Study,
    *,
    cohorts: Mapping[str, Cohort],
    site_paths: Mapping[str, Path],
    folder: Path,
    seeds: Sequence[int],
    cores: int,
    screen: Screen,
) -> dict[str, Any]:
    """Run all arms.

    Args:
        study: the study that was run; its checkpoints lie in ``folder``.
        cohorts: sites that could be indexed.
        site_paths: site to its document.
        folder: the run folder.
        seeds: further seeds, each a whole training of every arm; the study's own seed always counts.
        cores: processes at a time.
        screen: told of each arm.

    Returns:
        ``comparison`` and ``differences`` for ``result.json``; empty where the study has no probe.
    """
    shape = shape_of(study.preset)
    labelled = frozenset({"ecg", "phenotypes"})
    if not any(phase.task == "probe" for phase in study.phases):
        return {"comparison": [], "differences": []}
    paths = tuple(site_paths[site] for site in sorted(cohorts))
    jobs = []
    for seed in dict.fromkeys((study.seed, *seeds)):
        variant = study.model_copy(update={"seed": seed})
        arms = ["federated", "pooled"]
        arms += [f"alone:{s}" for s in sorted(cohorts) if len(cohorts[s].rows(labelled, "train", shape))]
        for arm in arms:
            jobs.append(_Job(arm=arm, study=variant, base=study, site_paths=paths, folder=folder))
    scores: list[_Score] = []
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        for number, future in enumerate(as_completed([pool.submit(_run_job, job) for job in jobs]), start=1):
            found = future.result()
            scores += found
            for score in found:
                screen.note(f"comparison · {number} of {len(jobs)} · {score.arm} · {METRIC} {score.mean:.4f}")
    return summarise(scores, sites=sorted(cohorts))


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


def summarise(scores: Sequence[_Score], *, sites: Sequence[str]) -> dict[str, Any]:
    """Average over seeds, replicate by replicate, and set the other arms beside ``federated``."""
    by_arm: dict[str, list[_Score]] = {}
    for score in scores:
        by_arm.setdefault(score.arm, []).append(score)
    order = ["federated", "unaligned", "pooled", *(f"alone:{site}" for site in sites)]
    comparison: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for arm in order:
        found = by_arm.get(arm)
        if not found:
            reason = "no labelled training patients"
            row = {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "seeds": 0, "reason": reason}
            comparison.append({"arm": arm, "metric": METRIC, **row})
            continue
        replicates = np.mean([score.replicates for score in found], axis=0)
        low, high = percentile_interval(replicates)
        comparison.append(
            {
                "arm": arm,
                "metric": METRIC,
                "mean": float(np.mean([score.mean for score in found])),
                "ci_low": low,
                "ci_high": high,
                "n": found[0].patients,
                "seeds": len(found),
                "by_seed": [score.mean for score in found],
            }
        )
        if arm != "federated":
            ours = by_arm["federated"]
            gap = np.mean([score.replicates for score in ours], axis=0) - replicates
            low, high = percentile_interval(gap)
            mean = float(np.mean([s.mean for s in ours]) - np.mean([s.mean for s in found]))
            differences.append({"arm": arm, "metric": METRIC, "mean": mean, "ci_low": low, "ci_high": high})
    return {"comparison": comparison, "differences": differences}


def _run_job(job: _Job) -> list[_Score]:
    torch.set_num_threads(1)
    cohorts = {}
    for path in job.site_paths:
        config = read_site(path)
        cohorts[config.site] = open_cache(config)
    everyone = [cohorts[site] for site in sorted(cohorts)]
    if job.arm == "federated":
        encoders = _federated_encoders(job)
        return [_score(arm, encoder, job, everyone, everyone) for arm, encoder in encoders.items()]
    if job.arm == "pooled":
        model = train_centrally(pooled_study(job.study, everyone), concatenate(everyone, site="pooled"))
        fit_on = everyone
    else:
        fit_on = [cohorts[job.arm.removeprefix("alone:")]]
        model = train_centrally(job.study, fit_on[0])
    return [_score(job.arm, model.phase_ends[-1]["ecg_encoder"], job, fit_on, everyone)]


def _federated_encoders(job: _Job) -> dict[str, Tensors]:
    """The encoder at the study's end, and as it was just before the align phase."""
    folder = job.folder
    if job.study.seed != job.base.seed:
        from simulation.flower import run_locally

        folder = job.folder / "compare" / f"seed-{job.study.seed}"
        run_locally(job.study, job.site_paths, folder=folder, progress=lambda event: None, track=False)
    store = CheckpointStore(folder / "checkpoints", study_digest=job.study.digest)
    last = len(job.study.phases) - 1
    found = {"federated": store.phase_end(last, job.study.phases[last].rounds).tensors("ecg_encoder")}
    tasks = [phase.task for phase in job.study.phases]
    before = tasks.index("align") - 1 if "align" in tasks else -1
    if before >= 0:
        end = store.phase_end(before, job.study.phases[before].rounds)
        found["unaligned"] = end.tensors("ecg_encoder")
    return found


def _score(
    arm: str, encoder: Tensors, job: _Job, fit_on: Sequence[Cohort], test_on: Sequence[Cohort]
) -> _Score:
    sums = probe_sums(job.base, encoder, fit_on=fit_on, test_on=test_on)
    columns = np.flatnonzero(measured_columns(sums))
    replicates = r_squared({name: sums[f"boot_{name}"] for name in REPLICATED})[:, columns].mean(axis=1)
    return _Score(
        arm=arm,
        mean=float(r_squared(sums)[columns].mean()),
        replicates=replicates,
        patients=int(sums["n_patients"][0]),
    )
