"""``cardionets-client logs``: what the service and the orders did, for people or as JSON lines."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from cardionets_core.errors import UsageError
from client.commands.answer import Format as Answer
from client.commands.answer import answering
from client.commands.service import FolderArgument


class Level(enum.StrEnum):
    """Of the lines that are printed: this and worse."""

    info = "info"
    warning = "warning"
    error = "error"


class Format(enum.StrEnum):
    """How lines are printed."""

    text = "text"
    json = "json"


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(logs)


def logs(
    folder: FolderArgument = Path(),
    follow: Annotated[
        bool, typer.Option("--follow", help="go on with lines as they come, until Ctrl-C")
    ] = False,
    level: Annotated[Level, typer.Option("--level", help="lines of this level and worse")] = Level.info,
    since: Annotated[
        str, typer.Option("--since", help="30m, 2h, 7d, or 2026-01-31T08:00 (local time); default: all")
    ] = "",
    format: Annotated[
        Format, typer.Option("--format", help="text in local time; or JSON lines as they were written")
    ] = Format.text,
) -> None:
    """Print this site's log: orders that came, what was trained, what left, refusals with their remedy.

    Use it when something was refused or a process ended. The lines lie in FOLDER/client.log and the older
    files beside it; they hold codes, digests, counts and sentences of the program, and nothing of a patient.
    What Flower's processes say lies as text in FOLDER/logs. Every event: docs/logs.md.
    """
    import sys
    import time
    from datetime import datetime

    from cardionets_core.config.connection import open_site_folder
    from cardionets_core.logs.reading import follow as lines_to_come
    from cardionets_core.logs.reading import parse_since, read_lines, text_line
    from client.log import LOG

    said = strange = 0

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def count() -> None:
        nonlocal strange
        strange += 1
        if follow and strange == 1:
            say(_strange_words(1))

    with answering(Answer.json if format is Format.json else Answer.table):
        if folder.is_file():
            raise UsageError(
                f"{folder} is a file",
                where="FOLDER",
                remedy=f"name the site's folder: cardionets-client logs {folder.parent}",
            )
        path = open_site_folder(folder).root / LOG
        earliest = parse_since(since, now=datetime.now().astimezone()) if since else None
    if follow:
        found = lines_to_come(path, wait=time.sleep, level=level.value, since=earliest, strange=count)
    else:
        found = read_lines(path, level=level.value, since=earliest, strange=count)
    for line in found:
        said += 1
        print(text_line(line) if format is Format.text else json.dumps(line, ensure_ascii=False), flush=True)
    if not said:
        kind = "line" if level is Level.info else f"line of level {level.value} or worse"
        say(f"no {kind}" + (f" since {earliest:%Y-%m-%d %H:%M:%S}" if earliest else f" in {path}"))
    if strange:
        say(_strange_words(strange))


def _strange_words(count: int) -> str:
    lines = "1 line" if count == 1 else f"{count:,} lines"
    return f"{lines} could not be read: torn, or not written by this program (docs/logs.md); not shown"
