"""The coordinator's daily words: start, stop, run, pause, resume, status, watch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cardionets_core.errors import UsageError
from server.commands.answer import Format, FormatOption, answer, answering

WorkspaceArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="the coordinator's workspace, made by init")
]


def register(cli: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (start, stop, run, pause, resume, status, watch):
        cli.command()(command)


def start(
    folder: WorkspaceArgument = Path(),
    background: Annotated[
        bool, typer.Option("--background", help="return once it is up; else it runs until Ctrl-C")
    ] = False,
) -> None:
    """Run the service: SuperLink and SuperExec, watched, restarted, with a health page on loopback."""
    from cardionets_core.config.workspace import open_workspace

    workspace = open_workspace(folder)
    if background:
        from cardionets_core.service.background import start_in_background

        command = [sys.executable, "-P", "-m", "server.cli", "start", str(workspace.root)]
        _say(f"the service starts; log {workspace.logs}")
        content = start_in_background(
            command, folder=workspace.state, log=workspace.logs / "service.log", cwd=workspace.root
        )
        _say(f"the service runs (process {content['supervisor']['pid']:.0f})")
        return
    from server.service import run_service

    run_service(workspace, tell=_say)


def stop(folder: WorkspaceArgument = Path()) -> None:
    """End the service in order; a study that runs goes on at the next start."""
    from cardionets_core.config.workspace import open_workspace
    from cardionets_core.service.background import stop_service

    _say("the service has ended" if stop_service(open_workspace(folder).state) else "no service was running")


def run(
    folder: WorkspaceArgument = Path(),
    initial: Annotated[
        Path | None, typer.Option("--initial", help="folder of the weights that the study names as initial")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="follow it to its end; the exit code says how")
    ] = False,
    no_track: Annotated[bool, typer.Option("--no-track", help="write no MLflow store")] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="record study.yaml as approved, as `plan --approve` does")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """Begin the workspace's study, or go on with it; it goes on through crashes until it ends or pauses."""
    from cardionets_core.config.workspace import open_workspace
    from server.studying import begin, running_study, take_back_pause, was_paused

    with answering(format):
        workspace = open_workspace(folder)
        taken_back = take_back_pause(workspace)
        if taken_back:
            _say(f"the pause is taken back: the study {taken_back.study} runs on")
        elif wait and (wanted := running_study(workspace)):
            _say(f"the study {wanted.study} runs already; this follows it")
            _follow(workspace, format)
            return
        paused = taken_back is None and was_paused(workspace)
        wanted = taken_back or begin(workspace, initial=initial, track=not no_track, approve=approve)
        if paused:
            _say(f"the pause is taken back: the study {wanted.study} goes on where it stopped")
    _tell_who_is_there(workspace)
    content = {"study": wanted.study, "study_digest": wanted.study_digest,
               "run_id": wanted.run_id, "folder": str(wanted.out)}  # fmt: skip
    if not wait:
        answer(content, lambda told: [f"study {told['study']} runs; results in {told['folder']}"], format)
        return
    _follow(workspace, format)


def resume(
    folder: WorkspaceArgument = Path(),
    wait: Annotated[
        bool, typer.Option("--wait", help="follow it to its end; the exit code says how")
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """Go on with a paused study where it stopped."""
    from cardionets_core.config.workspace import open_workspace
    from server.studying import go_on, take_back_pause

    with answering(format):
        workspace = open_workspace(folder)
        taken_back = take_back_pause(workspace)
        if taken_back:
            _say(f"the pause is taken back: the study {taken_back.study} runs on")
        wanted = taken_back or go_on(workspace)
    if wait:
        _follow(workspace, format)
        return
    content = {"study": wanted.study, "run_id": wanted.run_id}
    answer(content, lambda told: [f"study {told['study']} goes on as run {told['run_id']}"], format)


def pause(
    folder: WorkspaceArgument = Path(),
    now: Annotated[bool, typer.Option("--now", help="do not wait for the end of the round")] = False,
) -> None:
    """Pause the study after the round that runs; finished rounds and replies are kept."""
    from cardionets_core.config.workspace import open_workspace
    from server.studying import ask_to_pause

    ask_to_pause(open_workspace(folder), now=now)
    _say("the study is ended at once" if now else "the study pauses after the round that runs")


def status(folder: WorkspaceArgument = Path(), format: FormatOption = Format.table) -> None:
    """Say how service, sites and study are, and the cause of every failure."""
    from cardionets_core.config.workspace import open_workspace
    from server.overview import overview, overview_lines

    with answering(format):
        content = overview(open_workspace(folder))
    answer(content, overview_lines, format)


def watch(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="the coordinator's workspace; with --web also a run folder"),
    ] = Path(),
    web: Annotated[
        bool,
        typer.Option("--web", help="serve the study page for a browser on this machine, until Ctrl-C"),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="with --web: on loopback; 0 takes a free one")
    ] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open", help="with --web: also open it in this machine's browser")
    ] = False,
) -> None:
    """The live view of `status`; ends with the study, or with Ctrl-C (which leaves the study alone).

    `--web` serves the study page instead: sites over time, curves, what is spent and moved, sample cines. It
    tells an address with a token on stderr; only who has it sees the page, on this machine alone (from your
    desk: `ssh -L PORT:127.0.0.1:PORT`). The page can change nothing. The same page lies in the run folder as
    report.html, as it was after the last round.
    """
    if web:
        from server.page.web import serve_study

        serve_study(folder, port=port, open_browser=open_browser, tell=_say)
        return
    if port or open_browser:
        raise UsageError("--port and --open go with --web", where="--web")
    from cardionets_core.config.workspace import Workspace, open_workspace
    from server.live import live

    if not Workspace(folder).server_yaml.is_file() and _is_run(folder):
        raise UsageError(
            f"{folder} is the folder of a run, and the live view is of a workspace",
            where=str(folder),
            remedy=f"see its page: cardionets-server watch {folder} --web",
        )
    live(open_workspace(folder))


def _is_run(folder: Path) -> bool:
    from server.release.run_folder import RESULT, STATUS

    return any((folder / name).is_file() for name in (RESULT, STATUS))


def _follow(workspace: Any, format: Format) -> None:
    from server.live import follow

    try:
        content = follow(workspace, tell=_say)
    except KeyboardInterrupt:
        _say("the study goes on; `watch` or `run --wait` follow it, `pause` ends it after its round")
        raise SystemExit(130) from None
    if content["status"] == "paused":
        _say(f"to go on: cardionets-server resume {workspace.root}")
    if format is Format.json:
        print(json.dumps(content, sort_keys=True))
    if content["exit_code"]:
        raise SystemExit(content["exit_code"])


def _tell_who_is_there(workspace: Any) -> None:
    from server.overview import overview

    sites = [site for site in overview(workspace)["sites"] if site["status"] == "admitted"]
    connected = sum(site["connected"] for site in sites)
    if connected < len(sites) or not sites:
        _say(f"{connected} of {len(sites)} admitted sites are connected; `status` says for whom it waits")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
