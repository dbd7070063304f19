"""``cardionets-sim compare`` and ``sweep``: many studies on the same hospitals."""

from __future__ import annotations

import enum
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from simulation.commands.options import INTERRUPTED, DataOption, InitialOption, ScenarioArgument
from simulation.commands.typed import typed_arms, typed_jobs, typed_seeds, typed_strategies

SOME_FAILED = 1


class GridFormat(enum.StrEnum):
    """How a table is printed."""

    table = "table"
    json = "json"
    csv = "csv"


OutOption = Annotated[
    Path, typer.Option("--out", help="folder for everything; the same folder again takes the work up")
]
JobsOption = Annotated[
    str,
    typer.Option(
        "--jobs",
        help="cells at a time, each a process of its own; auto: one alone first, then as many as the free "
        "memory holds, at most --cores",
    ),
]
CoresOption = Annotated[
    int, typer.Option("--cores", min=1, help="processes that make hospitals, and most cells of --jobs auto")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="no progress; failures are told all the same")]
FormatOption = Annotated[GridFormat, typer.Option("--format", help="what stdout gets")]


def compare(
    scenario: ScenarioArgument,
    out: OutOption,
    arms: Annotated[
        str,
        typer.Option(
            "--arms",
            help="federated (the study), unaligned (its heads on an encoder that never saw a cine), pooled "
            "(all data in one place), alone (each site by itself); with commas between",
        ),
    ] = "federated,pooled,alone",
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies",
            help="strategies of the federated and unaligned arms, as fedavg,fedprox:mu=0.1,krum; options are "
            "laid over those of the scenario (comparison.strategies); one may come with several "
            "settings; without it the study's own",
        ),
    ] = "",
    seeds: Annotated[
        str, typer.Option("--seeds", help="as 7,8,9 or 1..5; without it those of the scenario")
    ] = "",
    baseline: Annotated[
        str, typer.Option("--baseline", help="strategy, or pooled, that all are set beside; else the first")
    ] = "",
    jobs: JobsOption = "auto",
    cores: CoresOption = 2,
    data: DataOption = None,
    initial: InitialOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="do away with hospitals of another scenario in the folder")
    ] = False,
    quiet: QuietOption = False,
    format: FormatOption = GridFormat.table,
) -> None:
    """Train arms, strategies and seeds side by side, and measure all on the same held-out patients.

    Every arm and seed is a cell of its own under OUT/cells; run the same command again after Ctrl-C, or with
    more seeds or strategies, and only what is missing is done. What comes out: a table with 95 % intervals
    over patients (paired bootstrap) and over seeds (Student's t), the difference of each arm to the baseline,
    and a forest plot. Exit code 1 if a cell failed; the others are in the table all the same.
    """
    # Before anything large is loaded: a slip of the finger is told at once.
    chosen, settings = typed_arms(arms), typed_strategies(strategies)
    chosen_seeds, processes = typed_seeds(seeds), typed_jobs(jobs)
    from simulation.comparison import CompareRequest, comparison_csv, run_comparison
    from simulation.comparison_table import comparison_table
    from simulation.scenario import load_scenario

    loaded = load_scenario(scenario)
    request = CompareRequest(
        scenario=loaded,
        out=out,
        arms=chosen,
        strategies=settings,
        seeds=chosen_seeds or loaded.comparison.seeds,
        jobs=processes,
        cores=cores,
        baseline=baseline,
        data=data,
        initial=initial,
        replace=replace,
    )
    content = _run(lambda screen: run_comparison(request, screen), quiet=quiet)
    if format is GridFormat.table:
        print(comparison_table(content, out))
    else:
        _print(content, format, comparison_csv)
    if content["failed_cells"]:
        raise SystemExit(SOME_FAILED)


def sweep(
    scenario: ScenarioArgument,
    out: OutOption,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="a key and its values; once for each key, examples above",
            metavar="KEY=VALUES",
        ),
    ],
    metric: Annotated[
        str,
        typer.Option(
            "--metric", help="TASK.METRIC to sort by, or a task; else the last phase's primary metric"
        ),
    ] = "",
    lowest: Annotated[bool, typer.Option("--lowest", help="the lowest value is the best")] = False,
    random: Annotated[
        int | None, typer.Option("--random", min=1, help="run so many of the combinations, drawn by chance")
    ] = None,
    random_seed: Annotated[int, typer.Option("--random-seed", min=0, help="of that draw")] = 0,
    jobs: JobsOption = "auto",
    cores: CoresOption = 2,
    data: DataOption = None,
    initial: InitialOption = None,
    track: Annotated[bool, typer.Option(help="write MLflow's store, a run a cell")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check every cell and list them; make and run nothing")
    ] = False,
    quiet: QuietOption = False,
    format: FormatOption = GridFormat.table,
) -> None:
    """Run a study once for every combination of some keys' values.

    Any key of the scenario, and of its study, can be set: phases by task or number, hospitals by site or
    number, other entries by number from 1. What stands behind a key:

    - `--set study.seed=1..5`: the whole numbers from 1 to 5

    - `--set study.aggregation.strategy=fedavg,median`: each of a list

    - `--set events.1.factor=1..10:4`: four evenly spaced numbers

    - `--set consortium.labels.dirichlet=log:0.1..10:3`: three with equal ratios

    - `--set study.phases.align.options.temperature=0.1,null`: null takes the key away, so its default holds

    Every combination is checked before anything is made. Cells lie under OUT/cells and are not run twice;
    hospitals are shared where the keys do not touch them. What comes out: a table sorted by the metric, a
    figure, and a run a cell in OUT/mlflow.db. Exit code 1 if a cell failed.
    """
    from simulation.sweep.values import parse_axes

    # Before anything large is loaded: a slip of the finger is told at once.
    axes, processes = parse_axes(set_), typed_jobs(jobs)
    from simulation.sweep.run import SweepRequest, plan_content, plan_csv, planned_cells, run_sweep, sweep_csv
    from simulation.sweep.table import plan_table, sweep_table

    request = SweepRequest(
        scenario=scenario,
        axes=axes,
        out=out,
        metric=metric,
        lowest=lowest,
        sample=random,
        sample_seed=random_seed,
        jobs=processes,
        cores=cores,
        data=data,
        initial=initial,
        track=track,
    )
    if dry_run:
        if not quiet:
            print("checking the study of every cell", file=sys.stderr, flush=True)
        content = plan_content(planned_cells(request))
        if format is GridFormat.table:
            print(plan_table(content))
        else:
            _print(content, format, plan_csv)
        return
    content = _run(lambda screen: run_sweep(request, screen), quiet=quiet)
    if format is GridFormat.table:
        print(sweep_table(content, out))
    else:
        _print(content, format, sweep_csv)
    if any(row["failure"] for row in content["rows"]):
        raise SystemExit(SOME_FAILED)


def _print(content: dict[str, Any], format: GridFormat, as_csv: Callable[[dict[str, Any]], str]) -> None:
    if format is GridFormat.json:
        print(json.dumps(content, sort_keys=True))
    else:
        print(as_csv(content), end="")


def _run(work: Callable[[Any], dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    """Do the work with a screen; Ctrl-C ends the cells and leaves what is done."""
    from simulation.screen import Screen

    screen = Screen(sys.stderr, live=sys.stderr.isatty(), quiet=quiet)
    # A batch system ends a job with SIGTERM: then, too, the cells are ended and what is done is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work(screen)
    except KeyboardInterrupt:
        screen.close()
        text = "stopped; what was done is kept, and the same command goes on from there"
        print(text, file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)
    finally:
        screen.close()
