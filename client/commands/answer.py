"""How commands of ``cardionets-client`` answer: one JSON object, or lines for people, on stdout."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import click
import typer
import typer.core

from cardionets_core.errors import CardioNetsError
from cardionets_core.versions import version_line
from client.ending import Stopped, error_json

SCHEMA_VERSION = 1
"""Of what stdout gets in the place of a result."""


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="what stdout gets")]


def _tell_versions(asked: bool) -> None:
    if asked:
        print(version_line())
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_tell_versions, help="print versions, and end")
]


def site_document(given: Path | None) -> Path | None:
    """The document that ``--site`` means: a folder stands for the ``site.yaml`` in it."""
    with contextlib.suppress(OSError):  # what may not be looked at is named by whoever reads it
        if given is not None and given.is_dir():
            return given / "site.yaml"
    return given


SiteOption = Annotated[
    Path,
    typer.Option("--site", callback=site_document, help="the site's folder, or the site.yaml in it"),
]
DeclaredOption = Annotated[
    Path | None,
    typer.Option(
        "--site",
        callback=site_document,
        help="a site's folder, or its site.yaml: it declares rate, unit and the like",
    ),
]


class SiteCommand(typer.core.TyperCommand):
    """A command that takes the site's folder by ``--site`` alone, and says so to whoever gives it bare."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; see click."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" in error.message:
                error.message += f"; name the site's folder so: {ctx.command_path} --site DIR"
            raise


@contextlib.contextmanager
def answering(format: Format, *, stopped: str = "") -> Iterator[None]:
    """A known error in here is also the one JSON object on stdout where JSON was asked for.

    Args:
        format: what stdout gets.
        stopped: what is true of a command that was stopped.
    """
    try:
        yield
    except CardioNetsError as error:
        if format is Format.json:
            print(json.dumps({"schema_version": SCHEMA_VERSION, "error": error_json(error)}))
        raise
    except Stopped as signal:
        if stopped and not signal.told:
            signal.told = f"stopped: {stopped}"
        raise


def answer(content: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], format: Format) -> None:
    """The result on stdout."""
    if format is Format.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **content}, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(lines(content)))
