"""``cardionets-sim``: a consortium on one machine. stdout is the result, stderr progress."""

from __future__ import annotations

import enum
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from cardionets_core.errors import CardioNetsError
from server.commands.answer import VersionOption
from simulation.commands.grids import compare as compare_command
from simulation.commands.grids import sweep as sweep_command
from simulation.commands.options import INTERRUPTED, DataOption, InitialOption, ScenarioArgument
from simulation.privacy_commands import privacy

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A consortium on one machine: makes hospitals on disk, runs the very study of a deployment on them, "
    "and compares it with the alternatives. Begin with: cardionets-sim run rehearsal --out runs/first",
    epilog="Scenarios and their keys: docs/simulation.md",
)
cli.add_typer(privacy, name="privacy")
cli.command("compare")(compare_command)
cli.command("sweep")(sweep_command)


@cli.callback()
def _program(version: VersionOption = False) -> None:
    """Options of the program itself; the option's own callback has done what it asks."""


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


class EngineName(enum.StrEnum):
    """What carries the messages."""

    flower = "flower"
    local = "local"


OutOption = Annotated[Path, typer.Option("--out", help="folder to write to")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="do away with what an earlier run left there")]
CoresOption = Annotated[int, typer.Option("--cores", min=1, help="processes that compute at a time")]
FormatOption = Annotated[Format, typer.Option("--format", help="what stdout gets")]


@cli.command()
def scenarios(format: FormatOption = Format.table) -> None:
    """List the scenarios that come with the program."""
    from simulation.scenario import shipped_scenarios

    found = shipped_scenarios()
    if format is Format.json:
        print(json.dumps({"schema_version": 1, "scenarios": found}))
    else:
        for name, about in found.items():
            print(f"{name:12} {about}")


@cli.command()
def show(scenario: ScenarioArgument, format: FormatOption = Format.table) -> None:
    """Print a scenario's hospitals as they would be made: sizes, who is ill, machines, skew, and its events.

    A consortium that is given by numbers is written out site by site. Nothing is made.
    """
    from simulation.scenario import load_scenario
    from simulation.scenario_table import scenario_content, scenario_table

    content = scenario_content(load_scenario(scenario))
    print(json.dumps(content, sort_keys=True) if format is Format.json else scenario_table(content))


@cli.command()
def make(
    scenario: ScenarioArgument,
    out: OutOption,
    data: DataOption = None,
    replace: ReplaceOption = False,
    cores: CoresOption = 2,
    prepare: Annotated[bool, typer.Option("--prepare", help="also index every hospital")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Write a scenario's hospitals, each in its own real layout with its own site.yaml, and run nothing.

    Use it to look at the files, to try cardionets-client on them, or to deploy real services on them.
    """
    from simulation.make import make_hospitals
    from simulation.scenario import load_scenario
    from simulation.screen import Screen

    screen = Screen(sys.stderr, live=sys.stderr.isatty())
    try:
        paths = make_hospitals(
            load_scenario(scenario), out, data=data, workers=cores, replace=replace, progress=screen.stage
        )
        if prepare:
            from simulation.run import index_hospitals

            index_hospitals(paths, screen, cores=cores)
    finally:
        screen.close()
    if format is Format.json:
        print(json.dumps({"schema_version": 1, "sites": [str(path) for path in paths]}))
    else:
        for path in paths:
            print(path)


@cli.command()
def run(
    scenario: ScenarioArgument,
    out: OutOption,
    data: DataOption = None,
    replace: ReplaceOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with a run that was stopped, from its newest round")
    ] = False,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="flower, or local: no Ray")
    ] = EngineName.flower,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="instead of the study's seed")] = None,
    cores: CoresOption = 2,
    compare: Annotated[
        bool, typer.Option(help="also train the arms that the federation is compared with")
    ] = True,
    track: Annotated[bool, typer.Option(help="mirror curves, result and model in MLflow")] = True,
    tracking_uri: Annotated[
        str,
        typer.Option("--tracking-uri", help="of a tracking server; default: mlflow.db in the run folder"),
    ] = "",
    initial: InitialOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Run a scenario from nothing to its result table: hospitals, study, pictures, comparison.

    The run folder gets result.json, report.html, model/ and plots/; nothing of an earlier run is written over
    unless --replace says so. A run that was stopped goes on with --resume and ends with the model that it
    would have had. The same scenario and seed give the same model, with either engine.
    """
    from cardionets_core.config.tracking import checked_uri
    from simulation.begun import BEGUN
    from simulation.run import RunRequest, run_scenario
    from simulation.scenario import load_scenario
    from simulation.screen import Screen

    screen = Screen(sys.stderr, live=sys.stderr.isatty(), quiet=quiet)
    request = RunRequest(
        scenario=load_scenario(scenario),
        out=out,
        data=data,
        engine=engine.value,
        replace=replace,
        resume=resume,
        seed=seed,
        cores=cores,
        compare=compare,
        track=track,
        tracking_uri=checked_uri(tracking_uri, where="--tracking-uri"),
        initial=initial,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end by SIGTERM is one by Ctrl-C
    try:
        result = run_scenario(request, screen)
    except KeyboardInterrupt:
        screen.close()
        told = "the same command with --replace begins it anew"
        if (out / BEGUN).exists():
            told = f"finished rounds are kept: the same command with --resume goes on; {told}"
        print(f"stopped; {told}", file=sys.stderr, flush=True)
        # The server's thread still waits for replies; a plain exit would wait for it.
        os._exit(INTERRUPTED)
    finally:
        screen.close()
    if format is Format.json:
        print(json.dumps(result, sort_keys=True))
    else:
        from simulation.table import result_table

        print(result_table(result, out))


def main() -> None:
    """Entry point; a known error becomes its message and exit code."""
    try:
        cli()
    except CardioNetsError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
