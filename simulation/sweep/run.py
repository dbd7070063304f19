"""``cardionets-sim sweep``: every combination of some keys' values, each a study run to its end.

Comes in: what the researcher typed. Goes out: ``sweep.json``, a table, a figure and MLflow's store. A cell
whose study, hospitals and schedule are the same as before is not run again; cells share the hospitals that
they have in common.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.faults import did_you_mean
from cardionets_core.durable import write_json, write_whole
from cardionets_core.errors import UsageError
from server.report import finite
from simulation.asked import check_initial, ready_folder, refuse_file
from simulation.cells.cell import Cell, CellResult, digest_of
from simulation.cells.child import Failure
from simulation.cells.runner import run_cells
from simulation.make import make_hospitals, real_folders
from simulation.run import index_hospitals
from simulation.screen import Screen
from simulation.sweep.job import StudyJob
from simulation.sweep.plan import Planned, plan_cells, read_base
from simulation.sweep.values import Axis

CONTENT = "sweep.json"
FIGURE = "sweep.png"
OURS = ("hospitals", "cells", "mlflow.db", CONTENT)
"""What an earlier call may have put into the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What the researcher typed.

    Attributes:
        scenario: name or path.
        axes: keys and values.
        out: folder of the sweep.
        metric: ``TASK.METRIC``, or a task for its primary metric; empty for the last phase's primary metric.
        lowest: whether the lowest value is the best.
        sample: how many combinations to draw; None runs all.
        sample_seed: of the draw.
        jobs: cells at a time; None finds as many as memory and cores allow.
        cores: processes that make hospitals, and most cells where ``jobs`` is None.
        data: folder of real recordings, for scenarios that use them.
        initial: folder of the weights that the study names as ``initial``.
        track: whether to write MLflow's store.
    """

    scenario: str
    axes: tuple[Axis, ...]
    out: Path
    metric: str = ""
    lowest: bool = False
    sample: int | None = None
    sample_seed: int = 0
    jobs: int | None = None
    cores: int = 2
    data: Path | None = None
    initial: Path | None = None
    track: bool = True


def planned_cells(request: SweepRequest) -> list[Planned]:
    """The cells, and all that was typed, checked; nothing is made.

    Raises:
        ConfigError: a cell is no valid scenario; all of them at once.
        UsageError: no cell has a phase of the metric's task, the folder is a file, or no study
            names initial weights.
        CheckpointError: weights that a study names are not in ``initial``.
    """
    planned = plan_cells(
        read_base(request.scenario), request.axes, sample=request.sample, sample_seed=request.sample_seed
    )
    refuse_file(request.out)
    check_initial((each.scenario.study for each in planned), request.initial)
    tasks = list(dict.fromkeys(phase.task for each in planned for phase in each.scenario.study.phases))
    wanted = request.metric.partition(".")[0]
    if request.metric and wanted not in tasks:
        raise UsageError(
            f"no cell has a phase {wanted!r}{did_you_mean(wanted, tasks)}",
            where="--metric",
            remedy=f"give TASK.METRIC, or a task alone, of: {', '.join(tasks)}",
        )
    return planned


def run_sweep(request: SweepRequest, screen: Screen) -> dict[str, Any]:
    """Run the cells that are not done, and write the table, the figure and MLflow's store.

    Returns:
        The content of ``sweep.json``; its rows are sorted, the best first.

    Raises:
        ConfigError: a cell is no valid scenario; all of them at once, before anything is made.
        UsageError: no cell has the metric; what was run is written all the same.
    """
    planned = planned_cells(request)
    for each in planned:
        real_folders(each.scenario, request.data)
    ready_folder(request.out, ours=OURS)
    cells, by_name = _cells(request, planned, screen)
    tracker = None
    if request.track:
        from server.tracking.cells import CellTracker

        tracker = CellTracker(
            store=request.out / "mlflow.db",
            artefacts=request.out / "mlflow",
            experiment=f"sweep-{planned[0].scenario.name}",
            grid=digest_of(axes=[[axis.key, list(axis.values)] for axis in request.axes]),
        )

    def done(cell: Cell, result: CellResult) -> str:
        metrics = result.content["metrics"]
        if tracker is not None:
            tracker.track(
                cell.digest,
                name=by_name[cell.name].label,
                params=by_name[cell.name].values,
                metrics={**metrics, "seconds": result.seconds},
            )
        return " · ".join(f"{name} {metrics[name]:.4f}" for name in result.content["primary"])

    outcomes = run_cells(
        cells,
        folder=request.out / "cells",
        jobs=request.jobs,
        cores=request.cores,
        screen=screen,
        done=done,
    )
    if tracker is not None:
        tracker.close()
        if tracker.failure:
            screen.warn(f"MLflow's store could not be written: {tracker.failure}")
    metric, unknown = request.metric, None
    try:
        metric = _metric(request.metric, outcomes.values())
    except UsageError as error:
        # What was run is kept, sorted as if no metric had been named; then the wrong one is told.
        metric, unknown = _metric("", outcomes.values()), error
    content = finite(
        {
            "schema_version": 1,
            "scenario": planned[0].scenario.name,
            "keys": [axis.key for axis in request.axes],
            "metric": metric,
            "lowest_is_best": request.lowest,
            "rows": _rows(cells, by_name, outcomes, metric=metric, lowest=request.lowest),
        }
    )
    write_json(request.out / CONTENT, content)
    write_whole(request.out / "sweep.csv", sweep_csv(content).encode())
    from simulation.pictures.sweep import picture_sweep

    picture_sweep(content, request.out / FIGURE)
    if unknown is not None:
        raise unknown
    return content


def _cells(
    request: SweepRequest, planned: Sequence[Planned], screen: Screen
) -> tuple[list[Cell], dict[str, Planned]]:
    """Make the hospitals that are missing; cells that differ in nothing else share them."""
    paths: dict[str, tuple[Path, ...]] = {}
    for each in planned:
        digest = each.scenario.hospitals_digest
        if digest not in paths:
            made = make_hospitals(
                each.scenario,
                request.out / "hospitals" / digest[:16],
                data=request.data,
                workers=request.cores,
                progress=lambda site, done, total: screen.stage(f"{site}: patients drawn", done, total),
            )
            index_hospitals(made, screen, cores=request.cores)
            paths[digest] = tuple(made)
    cells: list[Cell] = []
    by_name: dict[str, Planned] = {}
    for each in planned:
        job = StudyJob(
            study=each.scenario.study,
            site_paths=paths[each.scenario.hospitals_digest],
            hospitals=each.scenario.hospitals_digest,
            events=each.scenario.events,
            seed=each.scenario.seed,
            initial=request.initial,
        )
        name = f"{each.slug}-{job.digest[:8]}"
        if name not in by_name:
            by_name[name] = each
            cells.append(Cell(name=name, digest=job.digest, work=job))
    return cells, by_name


def _metric(wanted: str, outcomes: Any) -> str:
    results = [each.content for each in outcomes if isinstance(each, CellResult)]
    if not results:
        return wanted
    known = list(dict.fromkeys(name for each in results for name in each["metrics"]))
    primary = list(dict.fromkeys(name for each in results for name in each["primary"]))
    if not wanted and primary:
        return str(primary[-1])
    of_task = [name for name in primary if name.partition(".")[0] == wanted]
    found = [wanted] if wanted in known else of_task
    if wanted and not found:
        raise UsageError(
            f"no cell has the metric {wanted!r}{did_you_mean(wanted, known)}",
            where="--metric",
            remedy=f"the cells are done, and sweep.json has every metric: give the same command one of: "
            f"{', '.join(primary or known)}",
        )
    if not found:
        return wanted
    return str(found[-1])


def _rows(
    cells: Sequence[Cell],
    by_name: Mapping[str, Planned],
    outcomes: Mapping[str, CellResult | Failure],
    *,
    metric: str,
    lowest: bool,
) -> list[dict[str, Any]]:
    rows = []
    for cell in cells:
        outcome = outcomes[cell.name]
        row: dict[str, Any] = {"cell": cell.name, "values": dict(by_name[cell.name].values)}
        if isinstance(outcome, CellResult):
            row |= {**outcome.content, "value": outcome.content["metrics"].get(metric)}
            row |= {"seconds": outcome.seconds, "failure": ""}
        else:
            row |= {"value": None, "failure": outcome.code, "reason": outcome.text}
        rows.append(row)
    worst = float("inf")
    return sorted(
        rows,
        key=lambda row: worst if row["value"] is None else row["value"] if lowest else -row["value"],
    )


def plan_content(planned: Sequence[Planned]) -> dict[str, Any]:
    """What ``--dry-run`` tells: every cell with its values."""
    return {
        "schema_version": 1,
        "scenario": planned[0].scenario.name,
        "dry_run": True,
        "keys": list(planned[0].values),
        "cells": [{"label": each.label, "values": dict(each.values)} for each in planned],
    }


def plan_csv(content: Mapping[str, Any]) -> str:
    """The same as CSV: the keys, and a line a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(content["keys"])
    writer.writerows([cell["values"][key] for key in content["keys"]] for cell in content["cells"])
    return text.getvalue()


def sweep_csv(content: Mapping[str, Any]) -> str:
    """The rows as CSV: the keys, the metric, every primary metric, and why a cell failed."""
    primary = list(dict.fromkeys(name for row in content["rows"] for name in row.get("primary", ())))
    names = [name for name in primary if name != content["metric"]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*content["keys"], content["metric"], *names, "left_out", "seconds", "failure"])
    for row in content["rows"]:
        metrics = row.get("metrics", {})
        writer.writerow(
            [
                *(row["values"][key] for key in content["keys"]),
                row["value"],
                *(metrics.get(name) for name in names),
                row.get("left_out"),
                row.get("seconds"),
                row["failure"],
            ]
        )
    return text.getvalue()
