"""What the federation is compared with, on the same held-out patients (arms of ``comparison``).

``federated`` is the study's own model, or that of another strategy. ``unaligned`` has the heads of the study
on the encoder as it was before the align phase, trained in the same federation. ``pooled`` is the same study
on all data in one place, with the steps or with the batch of all sites together; ``alone:SITE`` is one site
with nobody else. Every arm is measured on the test patients of all members, and on external sites, which no
arm trains on. If asked for, ``without:SITE`` is the federation of the others, on the test patients of the
site (``holdout.py``). Bootstrap draws are shared, so differences between arms are paired.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.bootstrap import percentile_interval
from cardionets_core.tasks.shapes import shape_of
from simulation.arm_names import ARMS, FEDERATED
from simulation.arms import ArmJob
from simulation.cells.cell import Cell, CellResult
from simulation.cells.child import Failure
from simulation.cells.runner import Outcome, run_cells
from simulation.cells.scores import scores_of
from simulation.differences import column_rows, difference_row
from simulation.events.schedule import Attack, Fault, LabelFlip
from simulation.holdout import POOLED, WITHOUT, HoldoutJob, holdout_scores, left_out_of
from simulation.scoring import MEASURED_TASKS, Score
from simulation.screen import Screen

__all__ = ["ARMS", "Setup", "cell_word", "compare", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is compared, and on what.

    Attributes:
        study: the study; its seed draws the bootstrap.
        cohorts: sites that could be indexed.
        site_paths: site to its document.
        external: sites that never train.
        hospitals: digest of the hospitals' files.
        folder: receives a folder a cell.
        seeds: each a whole training of every arm.
        arms: of ``ARMS``.
        strategies: name in the table to the study of a federation; empty for the study itself alone.
        baseline: the name of the federation that all others are set beside.
        trained: folder where the study was run with its own seed, if it was.
        leave_one_out: whether to run the federation again without each member.
        initial: folder of the weights that the study names as ``initial``.
        pooled: how the pooled arm gets what all sites compute together, see ``pooled_study``.
        events: what happens on the way.
        seed: of the scenario.
    """

    study: Study
    cohorts: Mapping[str, Cohort]
    site_paths: Mapping[str, Path]
    external: frozenset[str]
    hospitals: str
    folder: Path
    seeds: Sequence[int]
    arms: Sequence[str] = ARMS
    strategies: Mapping[str, Study] = field(default_factory=dict)
    baseline: str = FEDERATED
    trained: Path | None = None
    leave_one_out: bool = False
    initial: Path | None = None
    pooled: Literal["steps", "batch"] = "steps"
    events: tuple[Fault | Attack | LabelFlip, ...] = ()
    seed: int = 0

    @property
    def federations(self) -> dict[str, Study]:
        """Name in the table to study."""
        return dict(self.strategies) or {FEDERATED: self.study}

    @property
    def members(self) -> list[str]:
        """Sites that train, in order."""
        return sorted(set(self.cohorts) - self.external)

    @property
    def names(self) -> list[str]:
        """Arms in the order of the table."""
        found = [name for name in self.federations if "federated" in self.arms]
        found += [unaligned(name) for name in self.federations if "unaligned" in self.arms]
        found += ["pooled"] if "pooled" in self.arms else []
        return found + [f"alone:{site}" for site in self.members if "alone" in self.arms]


def unaligned(federation: str) -> str:
    """The name of the unaligned arm of a federation: ``federated/x`` gives ``unaligned/x``."""
    return f"unaligned{federation.removeprefix(FEDERATED)}"


def cell_word(federation: str) -> str:
    """A federation's name as a part of a folder's: ``federated/x:mu=0.1`` gives ``federated-x-mu=0.1``."""
    word = re.sub(r"[^A-Za-z0-9.=_-]", "-", federation)
    if re.fullmatch(r"[A-Za-z0-9.=_/:-]*", federation) and len(word) <= 120:
        return word
    # What was left out may be all that two names differ in.
    return f"{word[:80]}-{hashlib.sha256(federation.encode()).hexdigest()[:8]}"


def compare(
    setup: Setup, *, jobs: int | None, cores: int, screen: Screen
) -> tuple[dict[str, Any], dict[str, Failure]]:
    """Run all arms that are not done, and set them side by side.

    Args:
        setup: what is compared.
        jobs: processes at a time; None finds as many as memory and cores allow.
        cores: most processes where ``jobs`` is None.
        screen: told of each arm.

    Returns:
        ``comparison``, ``differences`` and ``left_out``, empty where the study measures nothing that arms are
        compared by; and the cells that failed.
    """
    if not any(phase.task in MEASURED_TASKS for phase in setup.study.phases):
        return {"comparison": [], "differences": [], "left_out": []}, {}
    cells = _cells(setup)
    outcomes = run_cells(cells, folder=setup.folder, jobs=jobs, cores=cores, screen=screen, done=_told)
    # In the order of the cells, whichever ended first: the result repeats to the last bit.
    scores: list[Score] = []
    left_out = []
    for cell in cells:
        outcome = outcomes[cell.name]
        if isinstance(outcome, CellResult):
            if isinstance(cell.work, ArmJob):
                scores += scores_of(outcome)
            else:
                left_out.append(left_out_of(outcome))
    scores += holdout_scores(left_out, setup.study)
    found = summarise(
        scores,
        arms=setup.names,
        left_out=setup.members if left_out else (),
        baseline=setup.baseline,
        failed=_failed_arms(cells, outcomes),
    )
    found["left_out"] = [
        {"arm": arm, "seed": cell.work.study.seed, "row": row}
        for cell in cells
        if isinstance(outcome := outcomes[cell.name], CellResult) and isinstance(cell.work, ArmJob)
        for arm, rows in outcome.content.get("left_out", {}).items()
        for row in rows
    ]
    return found, {name: each for name, each in outcomes.items() if isinstance(each, Failure)}


def _cells(setup: Setup) -> list[Cell]:
    shape = shape_of(setup.study.models)
    paths = tuple(setup.site_paths[site] for site in sorted(setup.cohorts))
    # A site that has no ECG to train on cannot give an encoder of its own.
    alone = [
        site
        for site in setup.members
        if "alone" in setup.arms and len(setup.cohorts[site].rows(frozenset({"ecg"}), "train", shape))
    ]
    works: dict[str, ArmJob | HoldoutJob] = {}
    for seed in setup.seeds:
        seeded = setup.study.model_copy(update={"seed": seed})
        common: dict[str, Any] = {"base": setup.study, "site_paths": paths, "initial": setup.initial}
        happens: dict[str, Any] = {"events": setup.events, "seed": setup.seed}
        for arm in (*(("pooled",) if "pooled" in setup.arms else ()), *(f"alone:{site}" for site in alone)):
            name = f"{arm.replace(':', '-')}-seed{seed}"
            works[name] = ArmJob(arm=arm, names={arm: arm}, study=seeded, pooled=setup.pooled, **common)
        for federation, study in setup.federations.items():
            names = {"federated": federation, "unaligned": unaligned(federation)}
            names = {arm: name for arm, name in names.items() if arm in setup.arms}
            if names:
                works[f"{cell_word(federation)}-seed{seed}"] = ArmJob(
                    arm="federated",
                    names=names,
                    study=study.model_copy(update={"seed": seed}),
                    by_site=setup.leave_one_out,
                    trained=setup.trained if study.seed == seed else None,
                    **common,
                    **happens,
                )
        for site in setup.members if setup.leave_one_out and len(setup.members) > 1 else ():
            works[f"without-{site}-seed{seed}"] = HoldoutJob(site=site, study=seeded, **common, **happens)
    return [Cell(name=name, digest=work.digest(setup.hospitals), work=work) for name, work in works.items()]


def _told(cell: Cell, result: CellResult) -> str:
    """What a cell's line says."""
    if not isinstance(cell.work, ArmJob):
        return "measured without it"
    rows = [f"{s.arm} {s.population} {s.metric} {s.mean:.4f}" for s in scores_of(result)]
    return " · ".join(rows) or "its data cannot serve what is measured"


def _failed_arms(cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Name in the table to why a seed of it, or all of them, gave nothing."""
    found = {}
    for cell in cells:
        outcome = outcomes[cell.name]
        if isinstance(outcome, Failure) and isinstance(cell.work, ArmJob):
            for name in cell.work.names.values():
                found[name] = f"failed: {outcome.code}"
    return found


def summarise(
    scores: Sequence[Score],
    *,
    arms: Sequence[str],
    left_out: Sequence[str] = (),
    baseline: str = FEDERATED,
    failed: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Average over seeds, replicate by replicate, and set the other arms beside the baseline.

    Args:
        scores: of every arm, metric, population and seed.
        arms: in the order of the table; one without a score is listed with the reason.
        left_out: sites that were left out in turn; their patients are a population each.
        baseline: the arm that the others are taken from.
        failed: arm to why a seed of it gave nothing.
    """
    failed = failed or {}
    comparison: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for task, metric, population in dict.fromkeys((s.task, s.metric, s.population) for s in scores):
        group = [s for s in scores if (s.task, s.metric, s.population) == (task, metric, population)]
        words = {"task": task, "metric": metric, "population": population}
        ours = [s for s in group if s.arm == baseline]
        if population in left_out:
            shown = [baseline, f"{WITHOUT}{population}"]
        else:
            shown = [*arms, *dict.fromkeys(s.arm for s in group if s.arm == POOLED)]
        for arm in shown:
            found = [s for s in group if s.arm == arm]
            if arm == POOLED and (not ours or any(s.patients != ours[0].patients for s in found)):
                # Some site could not be left out: these are not the patients of the others.
                found = []
            comparison.append({"arm": arm, **words, **_row(found, failed.get(arm, ""))})
            # Seeds are paired too: a seed that one of the arms lacks would be a difference of its own.
            if arm != baseline and ours and len(found) == len(ours):
                row = {"arm": arm, **words, **difference_row(ours, found)}
                row |= _over_seeds([a.mean - b.mean for a, b in zip(ours, found, strict=True)])
                if arm == unaligned(baseline) and (columns := column_rows(ours, found)):
                    row["columns"] = columns
                differences.append(row)
    return {"comparison": comparison, "differences": differences}


def _row(found: Sequence[Score], failed: str = "") -> dict[str, Any]:
    """Mean over seeds with its interval, or why there is none."""
    if not found:
        reason = failed or "its data cannot serve this"
        nothing = {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "seeds": 0, "reason": reason}
        return nothing | _over_seeds([])
    low, high = percentile_interval(np.mean([score.replicates for score in found], axis=0))
    return {
        "mean": float(np.mean([score.mean for score in found])),
        "ci_low": low,
        "ci_high": high,
        "n": found[0].patients,
        "seeds": len(found),
        "by_seed": [score.mean for score in found],
        **({"reason": failed} if failed else {}),
        **_over_seeds([score.mean for score in found]),
    }


def _over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Student's 95 % interval of the mean over seeds; None with fewer than two."""
    if len(values) < 2:
        return {"seeds_low": None, "seeds_high": None}
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    mean = float(np.mean(values))
    return {"seeds_low": mean - half, "seeds_high": mean + half}
