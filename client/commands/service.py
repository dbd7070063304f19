"""Hospital IT's daily words: start and stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

FolderArgument = Annotated[Path, typer.Argument(help="the site's folder, made by init")]


def register(cli: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (start, stop):
        cli.command()(command)


def start(
    folder: FolderArgument = Path(),
    background: Annotated[
        bool, typer.Option("--background", help="return once it is up; else it runs until Ctrl-C")
    ] = False,
) -> None:
    """Run this site's service: connect to the coordinator, answer approved orders, restart after failures.

    It opens connections outwards only; nothing needs to be opened inwards. Says at once what the site still
    lacks (approvals, a prepared cache), and when the link to the coordinator comes or goes.
    """
    from cardionets_core.config.connection import open_site_folder

    place = open_site_folder(folder)
    if background:
        from cardionets_core.service.background import start_in_background
        from client.missing import missing_lines
        from client.service import check_folder

        check_folder(place)
        for line in missing_lines(place):
            _say(line)
        command = [sys.executable, "-P", "-m", "client.cli", "start", str(place.root)]
        _say(f"the service starts; log {place.logs}")
        content = start_in_background(
            command, folder=place.service, log=place.logs / "service.log", cwd=place.root
        )
        _say(f"the service runs (process {content['supervisor']['pid']:.0f})")
        _say(f"whether it reaches the coordinator, says: cardionets-client status {place.root}")
        return
    from client.service import run_service

    run_service(place, tell=_say)


def stop(folder: FolderArgument = Path()) -> None:
    """End this site's service; work in hand is lost, finished replies are kept."""
    from cardionets_core.config.connection import open_site_folder
    from cardionets_core.service.background import stop_service

    _say("the service has ended" if stop_service(open_site_folder(folder).service) else "none was running")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
