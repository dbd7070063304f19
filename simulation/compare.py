"""What the federation is compared with, on the same held-out patients (arms of ``comparison``).

``federated`` is the study's own model. ``unaligned`` has the heads of the study on the encoder as it was
before the align phase, trained in the same federation. ``pooled`` is the same study on all data in one place,
with the steps or with the batch of all sites together; ``alone:SITE`` is one site with nobody else. Every arm
is measured on the test patients of all members, and on external sites, which no arm trains on. If asked for,
``without:SITE`` is the federation of the others, on the test patients of the site (``holdout.py``). Bootstrap
draws are shared, so differences between arms are paired.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.bootstrap import percentile_interval
from cardionets_core.tasks.shapes import shape_of
from simulation.arms import ArmJob, run_arm
from simulation.differences import column_rows, difference_row
from simulation.holdout import POOLED, WITHOUT, HoldoutJob, LeftOut, holdout_scores, run_without
from simulation.scoring import MEASURED_TASKS, Score
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
    leave_one_out: bool = False,
    initial: Path | None = None,
    pooled: Literal["steps", "batch"] = "steps",
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
        leave_one_out: whether to run the federation again without each member.
        initial: folder of the weights that the study names as ``initial``.
        pooled: how the pooled arm gets what all sites compute together, see ``pooled_study``.

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
    every_seed = [study.model_copy(update={"seed": seed}) for seed in dict.fromkeys((study.seed, *seeds))]
    paths = tuple(site_paths[site] for site in sorted(cohorts))
    jobs = [
        ArmJob(
            arm=arm,
            study=seeded,
            base=study,
            site_paths=paths,
            folder=folder,
            by_site=leave_one_out,
            initial=initial,
            pooled=pooled,
        )
        for seeded in every_seed
        for arm in ("pooled", "federated", *(f"alone:{site}" for site in alone))
    ]
    holdouts = [
        HoldoutJob(site=site, study=seeded, base=study, site_paths=paths, folder=folder, initial=initial)
        for seeded in every_seed
        for site in (members if leave_one_out and len(members) > 1 else ())
    ]
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        trained = [pool.submit(run_arm, job) for job in jobs]
        without = [pool.submit(run_without, job) for job in holdouts]
        every: list[Future[Any]] = [*trained, *without]
        for number, ended in enumerate(as_completed(every), start=1):
            _tell(screen, ended.result(), f"comparison · {number} of {len(every)}")
    # In the order of the jobs, whichever ended first: the result repeats to the last bit.
    scores = [score for future in trained for score in future.result()]
    left_out = [held.result() for held in without]
    scores += holdout_scores(left_out, study)
    arms = ["federated", "unaligned", "pooled", *(f"alone:{s}" for s in members)]
    return summarise(scores, arms=arms, left_out=members if left_out else ())


def _tell(screen: Screen, found: list[Score] | LeftOut, where: str) -> None:
    if isinstance(found, LeftOut):
        screen.note(f"{where} · without {found.site} · measured there: {', '.join(found.sums) or '-'}")
        return
    for score in found:
        screen.note(f"{where} · {score.arm} · {score.population} · {score.metric} {score.mean:.4f}")


def summarise(
    scores: Sequence[Score], *, arms: Sequence[str], left_out: Sequence[str] = ()
) -> dict[str, Any]:
    """Average over seeds, replicate by replicate, and set the other arms beside ``federated``.

    Args:
        scores: of every arm, metric, population and seed.
        arms: in the order of the table; one without a score is listed with the reason.
        left_out: sites that were left out in turn; their patients are a population each.
    """
    comparison: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for task, metric, population in dict.fromkeys((s.task, s.metric, s.population) for s in scores):
        group = [s for s in scores if (s.task, s.metric, s.population) == (task, metric, population)]
        words = {"task": task, "metric": metric, "population": population}
        ours = [s for s in group if s.arm == "federated"]
        if population in left_out:
            shown = ["federated", f"{WITHOUT}{population}"]
        else:
            shown = [*arms, *dict.fromkeys(s.arm for s in group if s.arm == POOLED)]
        for arm in shown:
            found = [s for s in group if s.arm == arm]
            if arm == POOLED and (not ours or any(s.patients != ours[0].patients for s in found)):
                # Some site could not be left out: these are not the patients of the others.
                found = []
            comparison.append({"arm": arm, **words, **_row(found)})
            if arm != "federated" and ours and found:
                row = {"arm": arm, **words, **difference_row(ours, found)}
                if arm == "unaligned" and (columns := column_rows(ours, found)):
                    row["columns"] = columns
                differences.append(row)
    return {"comparison": comparison, "differences": differences}


def _row(found: Sequence[Score]) -> dict[str, Any]:
    """Mean over seeds with its interval, or why there is none."""
    if not found:
        reason = "its data cannot serve this"
        return {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "seeds": 0, "reason": reason}
    low, high = percentile_interval(np.mean([score.replicates for score in found], axis=0))
    return {
        "mean": float(np.mean([score.mean for score in found])),
        "ci_low": low,
        "ci_high": high,
        "n": found[0].patients,
        "seeds": len(found),
        "by_seed": [score.mean for score in found],
    }
