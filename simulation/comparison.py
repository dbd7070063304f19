"""``cardionets-sim compare``: arms, strategies and seeds of a scenario, into one table.

Comes in: what the researcher typed. Goes out: ``comparison.json``, a table and a figure; every cell of the
grid lies in a folder of its own and is not run twice. The arms themselves are those of ``compare.py``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.read import parse_document
from cardionets_core.config.study import Study
from cardionets_core.durable import write_json, write_whole
from cardionets_core.errors import CardioNetsError, ConfigError, UsageError
from server.report import finite
from simulation.arm_names import ARMS, FEDERATED
from simulation.asked import check_initial, check_study, in_one_line, ready_folder, refuse_file
from simulation.compare import Setup, compare
from simulation.make import make_hospitals, real_folders
from simulation.run import index_hospitals
from simulation.scenario import Scenario, StrategySetting
from simulation.scoring import MEASURED_TASKS
from simulation.screen import Screen

CONTENT = "comparison.json"
FIGURE = "comparison.png"
OURS = ("hospitals", "cells", CONTENT)
"""What an earlier call may have put into the folder."""
COLUMNS = (
    "arm", "task", "metric", "population", "mean", "ci_low", "ci_high", "seeds", "seeds_low", "seeds_high",
    "n",
    "difference", "difference_low", "difference_high", "difference_seeds_low", "difference_seeds_high", "p",
    "reason",
)  # fmt: skip
"""Of the table as CSV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """What the researcher typed.

    Attributes:
        scenario: the scenario.
        out: folder of the comparison.
        arms: of ``federated``, ``unaligned``, ``pooled`` and ``alone``.
        strategies: label (a name, or ``name:key=value``) to options, which are laid over those of the
            scenario; empty for the study's own.
        seeds: each a training of every arm.
        jobs: cells at a time; None finds as many as memory and cores allow.
        cores: processes that make hospitals, and most cells where ``jobs`` is None.
        baseline: the federation that all others are set beside; empty for the first.
        data: folder of real recordings, for scenarios that use them.
        initial: folder of the weights that the study names as ``initial``.
        replace: do away with what another scenario left in the folder.
    """

    scenario: Scenario
    out: Path
    arms: tuple[str, ...]
    strategies: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    jobs: int | None = None
    cores: int = 2
    baseline: str = ""
    data: Path | None = None
    initial: Path | None = None
    replace: bool = False


def run_comparison(request: CompareRequest, screen: Screen) -> dict[str, Any]:
    """Run the cells that are not done, and write the table and the figure.

    Returns:
        The content of ``comparison.json``.

    Raises:
        ConfigError: a strategy cannot run this study; all of them at once, before anything is run.
        UsageError: an arm or the baseline does not exist, or the folder holds another scenario's hospitals.
    """
    scenario, out = request.scenario, request.out
    federations = _federations(request)
    baseline = _baseline(request, list(federations))
    if not any(phase.task in MEASURED_TASKS for phase in scenario.study.phases):
        raise ConfigError(
            "the study measures nothing that arms are compared by",
            where="study.phases",
            remedy=f"give it a phase of: {', '.join(MEASURED_TASKS)}",
        )
    refuse_file(out)
    real_folders(scenario, request.data)
    check_initial([scenario.study], request.initial)
    ready_folder(out, ours=OURS)
    paths = make_hospitals(
        scenario,
        out / "hospitals",
        data=request.data,
        workers=request.cores,
        replace=request.replace,
        progress=lambda site, done, total: screen.stage(f"{site}: patients drawn", done, total),
    )
    cohorts, broken = index_hospitals(paths, screen, cores=request.cores)
    setup = Setup(
        study=scenario.study,
        cohorts=cohorts,
        site_paths={path.parent.name: path for path in paths},
        external=frozenset(hospital.site for hospital in scenario.hospitals if hospital.external),
        hospitals=scenario.hospitals_digest,
        folder=out / "cells",
        seeds=request.seeds,
        arms=request.arms,
        strategies=federations,
        baseline=baseline,
        initial=request.initial,
        pooled=scenario.comparison.pooled,
        events=scenario.events,
        seed=scenario.seed,
    )
    found, failed = compare(setup, jobs=request.jobs, cores=request.cores, screen=screen)
    content = finite(
        {
            "schema_version": 1,
            "scenario": scenario.name,
            "study_digest": scenario.study.digest,
            "hospitals_digest": scenario.hospitals_digest,
            "seeds": list(request.seeds),
            "baseline": baseline,
            "broken_sites": broken,
            "failed_cells": {name: {"code": each.code, "text": each.text} for name, each in failed.items()},
            **found,
        }
    )
    write_json(out / CONTENT, content)
    write_whole(out / "comparison.csv", comparison_csv(content).encode())
    from simulation.pictures.comparison import picture_comparison

    picture_comparison(content, out / FIGURE)
    return content


def _federations(request: CompareRequest) -> dict[str, Study]:
    """Name in the table to study, each one checked."""
    unknown = [arm for arm in request.arms if arm not in ARMS]
    if unknown or not request.arms:
        raise UsageError(
            f"there is no arm {', '.join(unknown) or 'at all'}",
            where="--arms",
            remedy=f"use some of: {','.join(ARMS)}",
        )
    study, settings = request.scenario.study, request.scenario.comparison.strategies
    if not request.strategies:
        return {FEDERATED: study}
    found: dict[str, Study] = {}
    faults: list[str] = []
    for label, typed in request.strategies.items():
        name = label.partition(":")[0]
        try:
            found[f"{FEDERATED}/{label}"] = _with_strategy(
                study, name, settings.get(name, StrategySetting()), typed=typed
            )
        except CardioNetsError as error:
            faults.append(f"  - {label}: {in_one_line(error)}")
    if faults:
        raise ConfigError(
            f"{len(faults)} of the strategies cannot run this study:\n" + "\n".join(faults),
            where="--strategies",
            remedy="leave them out, or set them in the scenario under comparison.strategies "
            "(options, and keys laid over each phase's optimiser)",
        )
    return found


def _with_strategy(study: Study, name: str, setting: StrategySetting, *, typed: Mapping[str, Any]) -> Study:
    """The study under another strategy.

    Options are those that were typed, over the scenario's, over the study's own where it is its strategy.
    """
    own = study.aggregation.options if study.aggregation.strategy == name else {}
    content = study.model_dump(mode="json", exclude_none=True)
    content["aggregation"] = {"strategy": name, "options": {**own, **setting.options, **typed}}
    for phase in content["phases"]:
        if "optimiser" in phase:
            if {"lr", "blr"} & set(setting.optimiser):
                phase["optimiser"] = {k: v for k, v in phase["optimiser"].items() if k not in ("lr", "blr")}
            phase["optimiser"] |= setting.optimiser
    changed = parse_document(Study, content, where=f"study under {name}")
    check_study(changed)
    return changed


def _baseline(request: CompareRequest, federations: Sequence[str]) -> str:
    arms = list(federations) if "federated" in request.arms else []
    others = [arm for arm in request.arms if arm == "pooled"]
    if not request.baseline:
        if not [*arms, *others]:
            raise UsageError(
                "there is nothing to set the arms beside", where="--arms", remedy="add federated or pooled"
            )
        return [*arms, *others][0]
    wanted = request.baseline
    named = [arm for arm in arms if arm.removeprefix(f"{FEDERATED}/").partition(":")[0] == wanted]
    if f"{FEDERATED}/{wanted}" in arms:
        wanted = f"{FEDERATED}/{wanted}"
    elif len(named) == 1:
        wanted = named[0]
    if wanted not in (*arms, *others):
        raise UsageError(
            f"{request.baseline} is none of the arms that all sites' data are in"
            f"{did_you_mean(wanted, [*arms, *others, *(arm.removeprefix(f'{FEDERATED}/') for arm in arms)])}",
            where="--baseline",
            remedy=f"use one of: {', '.join([*arms, *others])}",
        )
    return wanted


def table_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row an arm, task and population, with its difference to the baseline beside it."""
    key = ("arm", "task", "metric", "population")
    differences = {tuple(row[word] for word in key): row for row in content["differences"]}
    rows = []
    for row in content["comparison"]:
        other = differences.get(tuple(row[word] for word in key), {})
        # Stored as baseline minus arm; a reader wants to see what the arm adds.
        rows.append(
            {
                **{word: row.get(word) for word in COLUMNS},
                "difference": _minus(other.get("mean")),
                "difference_low": _minus(other.get("ci_high")),
                "difference_high": _minus(other.get("ci_low")),
                "difference_seeds_low": _minus(other.get("seeds_high")),
                "difference_seeds_high": _minus(other.get("seeds_low")),
                "p": other.get("p"),
            }
        )
    return rows


def comparison_csv(content: Mapping[str, Any]) -> str:
    """The table as CSV; an absent value is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows(content))
    return text.getvalue()


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
