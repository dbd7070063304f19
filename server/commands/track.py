"""``cardionets-server track``: send to MLflow what its server missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from server.commands.answer import Format, FormatOption, answer, answering

THERE = 'its experiment, under "Training runs" (MLflow opens on "GenAI": switch to "Model training")'


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(track)


def track(
    folder: Annotated[
        Path, typer.Argument(help="a workspace (its newest study), or a study's run folder", metavar="FOLDER")
    ] = Path(),
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="another tracking server or store, such as http://127.0.0.1:5000"),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="its name there; default the study's")
    ] = None,
    no_register: Annotated[
        bool, typer.Option("--no-register", help="leave the model registry alone")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what was sent and what is missing; send nothing")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """Send to MLflow what its server missed: rounds, result, plots, the model.

    A study never waits for its tracking server; what that missed is sent by the study itself as soon as the
    server answers, at a resume, or by this command. It may be called at any time and as often as you like:
    what is there is not sent again. stdout says what the server holds now; the exit code is 6 where something
    is still missing. Passwords come from the environment: MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD.
    """
    from server.tracking.later import LaterRequest, send_later

    request = LaterRequest(
        folder=folder, uri=uri, experiment=experiment, register=not no_register, dry_run=dry_run
    )
    with answering(format):
        content = send_later(request)
    answer(content, _lines, format)
    if content["status"] == "behind" and not dry_run:
        raise SystemExit(content["exit_code"])


def _lines(content: dict[str, Any]) -> Iterator[str]:
    yield f"study {content['study']} · {content['folder']}"
    yield f"  store {content['store']} · rounds {content['rounds_sent']} of {content['rounds']}"
    if "model" in content:
        yield f"  model {content['model']['name']} version {content['model']['version']}"
    if content["status"] == "written":
        yield "  nothing is missing"
    else:
        yield f"  missing: {', '.join(content['missing'])}"
        if content["reason"]:
            yield f"  why: {content['reason']}"
    if content["look"]:
        yield f"  look: {content['look']}"
        yield f"  there: {THERE}"
