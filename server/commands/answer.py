"""How commands of ``cardionets-server`` answer: one JSON object, or lines for people, on stdout."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import typer

from cardionets_core.errors import CardioNetsError
from cardionets_core.versions import version_line

SCHEMA_VERSION = 1


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


@contextlib.contextmanager
def answering(format: Format) -> Iterator[None]:
    """A known error in here is also the one JSON object on stdout where JSON was asked for."""
    try:
        yield
    except CardioNetsError as error:
        if format is Format.json:
            print(json.dumps({"schema_version": SCHEMA_VERSION, "error": error_json(error)}))
        raise


def error_json(error: CardioNetsError) -> dict[str, Any]:
    """The error for programs, in the shape that hospital IT's program uses too."""
    return {
        "code": error.code,
        "exit_code": error.exit_code,
        "what": error.what,
        "where": error.where,
        "remedy": error.remedy,
    }


def answer(content: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], format: Format) -> None:
    """The result on stdout."""
    if format is Format.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **content}, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(lines(content)))
