"""``init`` and ``plan``: a workspace from nothing, and what its study will do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cardionets_core.errors import UsageError
from server.commands.answer import Format, FormatOption, answer, answering
from server.commands.completion import study_names


def register(cli: typer.Typer) -> None:
    """Add the commands to the program."""
    cli.command()(init)
    cli.command()(plan)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the workspace; made if absent")],
    address: Annotated[
        str | None, typer.Option("--address", help="host:port under which the sites reach this server")
    ] = None,
    consortium: Annotated[
        str | None, typer.Option("--consortium", help="its name: lower-case letters, digits, hyphens")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            help="to begin with: a path, or the name of a shipped study",
            autocompletion=study_names,
        ),
    ] = None,
    inner_port: Annotated[
        int | None,
        typer.Option(
            "--inner-port",
            min=1,
            max=65535,
            help="on loopback, Flower's control and runtime; of a second coordinator here another. "
            "Default 9101",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            "--health-port", min=1, max=65535, help="on loopback, the health of the service. Default 9102"
        ),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Make a workspace: documents from commented templates, and folders. Overwrites nothing."""
    from server.workspace_folder import make_workspace

    with answering(format):
        content = make_workspace(
            folder,
            address=address,
            consortium=consortium,
            study=study,
            inner_port=inner_port,
            health_port=health_port,
        )
    answer(content, _made_lines, format)


def plan(
    study: Annotated[
        str,
        typer.Argument(
            help="a workspace, the path of a study.yaml, or the name of a shipped study",
            autocompletion=study_names,
        ),
    ] = ".",
    approve: Annotated[
        bool, typer.Option("--approve", help="record in the workspace that this is what shall run")
    ] = False,
    patients: Annotated[
        list[str] | None,
        typer.Option("--patients", help="NAME=COUNT training patients of a site, for what it will spend"),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Check a study and say what it will do: phases, rounds, modules, bytes; and what has changed since.

    Of a private study it also predicts what each site will spend: --patients riverside=812 (the training
    patients who serve each phase), or --patients riverside=812,0,640 with one count a phase.
    """
    with answering(format):
        content = _plan(study, approve=approve, patients=patients or ())
    answer(content, _plan_lines, format)


def _plan(study: str, *, approve: bool, patients: Sequence[str]) -> dict[str, Any]:
    from cardionets_core.config.study import read_study
    from cardionets_core.config.workspace import open_workspace
    from server.plan import plan_of
    from server.study_files import find_study

    if not Path(study).is_dir():
        if approve:
            raise UsageError(
                "an approval is kept in a workspace, and this is a study alone",
                where="--approve",
                remedy="give the workspace: cardionets-server plan DIR --approve",
            )
        return plan_of(read_study(find_study(study)), patients=patients)
    from server.approved_plans import approve_plan, comparison
    from server.provision.roster import check_roster, known_sites

    workspace = open_workspace(Path(study))
    document = read_study(workspace.study_yaml)
    check_roster(workspace, document)
    content = plan_of(document, patients=patients, sites=known_sites(workspace))
    since = comparison(workspace, document)
    recorded = approve and approve_plan(workspace, document)
    return content | {"approved": since | {"recorded": recorded}}


def _plan_lines(content: dict[str, Any]) -> Iterator[str]:
    from server.approved_plans import comparison_lines
    from server.plan import plan_lines

    yield from plan_lines(content)
    if "approved" not in content:
        return
    recorded = content["approved"]["recorded"]
    if not recorded or content["approved"]["digest"] is not None:
        yield from comparison_lines(content["approved"])
    if recorded:
        yield f"recorded as approved: {content['study_digest']}"


def _made_lines(content: dict[str, Any]) -> Iterator[str]:
    yield f"workspace of {content['consortium']} at {content['address']}: {content['folder']}"
    yield f"made: {', '.join(content['made']) or 'nothing'}"
    if content["kept"]:
        yield f"there already, left as it is: {', '.join(content['kept'])}"
    yield "next: look through server.yaml and study.yaml; README.md says the rest"
