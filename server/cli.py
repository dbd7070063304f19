"""``cardionets-server``: the coordinator's program. stdout is the result, stderr progress."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cardionets_core.errors import CardioNetsError
from server.commands import journal, package, release, service, sites, track, workspace
from server.commands.answer import Format, VersionOption

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The coordinator of a consortium: its workspace, its study, its sites, its model. "
    "First day: init, plan --approve, provision, package, admit. Then: start, run, watch, release. "
    "DIR is the workspace that init makes; where it is left out, it is the folder that you are in. Only init "
    "and admit want it named.",
    epilog="A dress rehearsal on one machine, and every step in order: docs/operators.md",
)

for _commands in (workspace, sites, package, service, journal, track, release):
    _commands.register(cli)


@cli.callback()
def _program(version: VersionOption = False) -> None:
    """Options of the program itself; the option's own callback has done what it asks."""


class Family(enum.StrEnum):
    """Families of published weights; the keys of ``PUBLISHED``, which ``--help`` does not import."""

    st_mem = "st-mem"
    mae_vit = "mae-vit"
    mar = "mar"


@cli.command(name="import-weights")
def import_weights(
    family: Annotated[Family, typer.Argument(help="whose layout the checkpoint has")],
    checkpoint: Annotated[Path, typer.Argument(help="a .safetensors file or a torch checkpoint")],
    preset: Annotated[str, typer.Option("--preset", help="sizes of our modules: nano, small or paper")],
    out: Annotated[Path, typer.Option("--out", help="folder to make; it must not exist")],
    adapt: Annotated[
        bool, typer.Option("--adapt", help="change or leave out what differs in size; all of it is recorded")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of parameters the checkpoint lacks")] = 0,
    licence: Annotated[str, typer.Option("--licence", help="licence of the weights, as you found it")] = "",
    format: Annotated[Format, typer.Option("--format", help="what stdout gets")] = Format.table,
) -> None:
    """Read published weights, running nothing of the file, into a folder that a study can start from."""
    from server.import_weights import ImportRequest, import_weights, summary_lines

    content = import_weights(
        ImportRequest(
            family=family.value,
            source=checkpoint,
            preset=preset,
            out=out,
            adapt=adapt,
            seed=seed,
            licence=licence,
        )
    )
    if format is Format.json:
        print(json.dumps(content, sort_keys=True))
        return
    print("\n".join(summary_lines(content)))


def main() -> None:
    """Entry point; a known error becomes its message and exit code."""
    try:
        cli()
    except CardioNetsError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
