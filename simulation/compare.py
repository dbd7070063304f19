"""What the federation is compared with, on the same held-out patients (arms of ``comparison``).

``federated`` is the study's own model. ``unaligned`` has the heads of the study on the encoder as it was
before the align phase, trained in the same federation. ``pooled`` is the same study on all data in one place,
with as many steps as all sites together make; ``alone:SITE`` is one site with nobody else. Every arm is
measured on the test patients of all members, and on external sites, which no arm trains on. Bootstrap draws
are shared, so differences between arms are paired.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.bootstrap import percentile_interval
from cardionets_core.tasks.shapes import shape_of
from simulation.arms import MEASURED_TASKS, ArmJob, Score, run_arm
from simulation.screen import Screen

__all__ = ["compare", "summarise"]


def compare(
    study: Study,
    *,
    cohorts: Mapping[str, Cohort],
    site_paths: Mapping[str, Path],
    external: frozenset[str],
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
        external: sites that never train.
        folder: the run folder.
        seeds: further seeds, each a whole training of every arm; the study's own seed always counts.
        cores: processes at a time.
        screen: told of each arm.

    Returns:
        ``comparison`` and ``differences`` for ``result.json``; empty where the study measures nothing that
        arms are compared by.
    """
    measured = [phase.task for phase in study.phases if phase.task in MEASURED_TASKS]
    if not measured:
        return {"comparison": [], "differences": []}
    shape = shape_of(study.preset)
    members = sorted(set(cohorts) - external)
    # A site that has no ECG to train on cannot give an encoder of its own.
    alone = [site for site in members if len(cohorts[site].rows(frozenset({"ecg"}), "train", shape))]
    jobs = [
        ArmJob(
            arm=arm,
            study=study.model_copy(update={"seed": seed}),
            base=study,
            site_paths=tuple(site_paths[site] for site in sorted(cohorts)),
            folder=folder,
        )
        for seed in dict.fromkeys((study.seed, *seeds))
        for arm in ("pooled", "federated", *(f"alone:{site}" for site in alone))
    ]
    scores: list[Score] = []
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(run_arm, job) for job in jobs]
        for number, future in enumerate(as_completed(futures), start=1):
            found = future.result()
            scores += found
            for score in found:
                screen.note(
                    f"comparison · {number} of {len(jobs)} · {score.arm} · {score.population} · "
                    f"{score.metric} {score.mean:.4f}"
                )
    return summarise(scores, arms=["federated", "unaligned", "pooled", *(f"alone:{s}" for s in members)])


def summarise(scores: Sequence[Score], *, arms: Sequence[str]) -> dict[str, Any]:
    """Average over seeds, replicate by replicate, and set the other arms beside ``federated``.

    Args:
        scores: of every arm, metric, population and seed.
        arms: in the order of the table; one without a score is listed with the reason.
    """
    comparison: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for task, metric, population in dict.fromkeys((s.task, s.metric, s.population) for s in scores):
        group = [s for s in scores if (s.task, s.metric, s.population) == (task, metric, population)]
        words = {"task": task, "metric": metric, "population": population}
        ours = [s for s in group if s.arm == "federated"]
        for arm in arms:
            found = [s for s in group if s.arm == arm]
            if not found:
                reason = "its data cannot serve this"
                row = {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "seeds": 0, "reason": reason}
                comparison.append({"arm": arm, **words, **row})
                continue
            replicates = np.mean([score.replicates for score in found], axis=0)
            low, high = percentile_interval(replicates)
            comparison.append(
                {
                    "arm": arm,
                    **words,
                    "mean": float(np.mean([score.mean for score in found])),
                    "ci_low": low,
                    "ci_high": high,
                    "n": found[0].patients,
                    "seeds": len(found),
                    "by_seed": [score.mean for score in found],
                }
            )
            if arm != "federated" and ours:
                low, high = percentile_interval(
                    np.mean([score.replicates for score in ours], axis=0) - replicates
                )
                mean = float(np.mean([s.mean for s in ours]) - np.mean([s.mean for s in found]))
                differences.append({"arm": arm, **words, "mean": mean, "ci_low": low, "ci_high": high})
    return {"comparison": comparison, "differences": differences}
