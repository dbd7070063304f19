"""How commands of ``cardionets-client`` answer: one JSON object, or lines for people, on stdout."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import typer

from cardionets_core.errors import CardioNetsError
from client.ending import Stopped, error_json

SCHEMA_VERSION = 1
"""Of what stdout gets in the place of a result."""


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="what stdout gets")]


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
