"""``cardionets-sim privacy``: what the privacy of the sites' training is worth, by experiment."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

privacy = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Attack the privacy of the sites' training, and see what it costs.",
)

OutOption = Annotated[Path, typer.Option("--out", help="folder to write to")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of all draws")]
CoresOption = Annotated[int, typer.Option("--cores", min=1, help="processes that compute at a time")]
FormatOption = Annotated[Literal["table", "json"], typer.Option("--format", help="what stdout gets")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="do away with what an earlier run left there")]


@privacy.command()
def audit(
    out: OutOption,
    epsilon: Annotated[float, typer.Option("--epsilon", min=0.1, max=20.0, help="that is claimed")] = 2.0,
    trials: Annotated[int, typer.Option("--trials", min=20, help="trainings with a canary")] = 6000,
    seed: SeedOption = 0,
    cores: CoresOption = 2,
    replace: ReplaceOption = False,
    format: FormatOption = "table",
) -> None:
    """Bound from below the epsilon of the private steps, and of deliberately broken ones."""
    from simulation.audit import run_audit
    from simulation.privacy_tables import audit_table

    _free(out / "audit.json", replace=replace)
    content = run_audit(out, epsilon=epsilon, trials=trials, seed=seed, cores=cores, progress=_told)
    _print(content, audit_table, out=out, format=format)


@privacy.command()
def inversion(
    out: OutOption,
    starts: Annotated[int, typer.Option("--starts", min=1, help="windows that an attack begins with")] = 8,
    steps: Annotated[int, typer.Option("--steps", min=2, help="steps with the best of them")] = 1500,
    seed: SeedOption = 1,
    cores: CoresOption = 2,
    replace: ReplaceOption = False,
    format: FormatOption = "table",
) -> None:
    """Reconstruct ECGs from updates: plain, under differential privacy, under secure aggregation."""
    from simulation.inversion import run_inversion
    from simulation.inversion_attack import Effort
    from simulation.privacy_tables import inversion_table

    _free(out / "inversion.json", replace=replace)
    effort = Effort(starts=starts, steps=steps)
    content = run_inversion(out, effort=effort, seed=seed, cores=cores, progress=_told)
    _print(content, inversion_table, out=out, format=format)


@privacy.command()
def utility(
    out: OutOption,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=20, help="trainings of a point")] = 3,
    large: Annotated[bool, typer.Option(help="also at large hospitals")] = True,
    whole: Annotated[bool, typer.Option(help="also encoder and head from nothing")] = True,
    cores: CoresOption = 2,
    replace: ReplaceOption = False,
    format: FormatOption = "table",
) -> None:
    """Draw the held-out metric over epsilon, on made hospitals of two sizes."""
    from simulation.privacy_tables import utility_table
    from simulation.utility import run_utility

    _free(out / "utility.json", replace=replace)
    content = run_utility(
        out, seeds=range(7, 7 + seeds), large=large, whole=whole, cores=cores, progress=_told
    )
    _print(content, utility_table, out=out, format=format)


def _free(path: Path, *, replace: bool) -> None:
    from cardionets_core.errors import UsageError

    if path.exists() and not replace:
        raise UsageError(
            f"{path} is the result of an earlier run",
            where="--out",
            remedy="choose another folder, or pass --replace",
        )


def _told(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _print(
    content: Mapping[str, Any], table: Callable[[Mapping[str, Any]], list[str]], *, out: Path, format: str
) -> None:
    if format == "json":
        sys.stdout.write(json.dumps(content, sort_keys=True) + "\n")
    else:
        lines = [*table(content), "", f"{content['picture']} and {content['experiment']}.json are in {out}"]
        sys.stdout.write("\n".join(lines) + "\n")
