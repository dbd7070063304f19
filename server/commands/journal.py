"""``cardionets-server journal``: what came in a study, and whether the record of it is whole."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cardionets_core.errors import UsageError
from server.commands.answer import Format, FormatOption, answer, answering


class Action(enum.StrEnum):
    """What to do with the journal."""

    show = "show"
    verify = "verify"
    export_heads = "export-heads"


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(journal)


def journal(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="the study's run folder: DIR/runs/NAME-DIGEST")],
    action: Annotated[
        Action, typer.Argument(help="show it, verify its chain, or print the heads of the sites' journals")
    ] = Action.show,
    against: Annotated[
        Path | None, typer.Option("--against", help="verify: heads that a site has exported")
    ] = None,
    site: Annotated[str, typer.Option("--site", help="export-heads: of this site only")] = "",
    format: FormatOption = Format.table,
) -> None:
    """Print every reply that was taken or refused, a line for each; or check that no line was changed.

    `verify --against FILE` finds a journal that was rewritten whole, or cut off: FILE is what
    `cardionets-client journal export-heads` prints at a site. `export-heads` prints what this server knows of
    the sites' journals, for the sites.
    """
    from server.journal_audit import exported, open_journal, verified

    with answering(format):
        if against is not None and action is not Action.verify:
            raise UsageError("--against goes with verify", where="--against")
        opened = open_journal(run)
        if action is Action.verify:
            content = verified(opened, against=against)
        elif action is Action.export_heads:
            content = exported(opened, site=site)
        else:
            verified(opened, against=None)
    if action is Action.verify:
        answer(content, _verified_lines, format)
    elif action is Action.export_heads:
        print(json.dumps(content, sort_keys=True, indent=1))
    else:
        _show(opened.path, format)


def _show(path: Path, format: Format) -> None:
    from cardionets_core.audit.lines import journal_bodies, journal_line

    for body in journal_bodies(path):
        print(body if format is Format.json else journal_line(body))


def _verified_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['lines']} lines, whole"
    if "heads" in found:
        knew, signed = found["heads"], found["signed"]
        yield f"{knew} heads that the site knew lie on it, {signed} of them signed by this server"
