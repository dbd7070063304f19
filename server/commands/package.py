"""``cardionets-server package``: build the code that the sites are asked to approve."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from server.bundle import Bundle

SCHEMA_VERSION = 1


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(package)


def package(
    folder: Annotated[Path, typer.Argument(help="the coordinator's workspace", metavar="DIR")] = Path(),
    format: Annotated[Format, typer.Option("--format", help="what stdout gets")] = Format.table,
) -> None:
    """Build the code package from what is installed here, and print its hash and what changed.

    Writes code/NAME-VERSION.fab, code/app and code/package.json. Sites run a package only after their IT
    approved its SHA-256; the same code has the same one on any machine.
    """
    from cardionets_core.config.workspace import open_workspace
    from server.bundle import build_bundle

    content = _facts(build_bundle(open_workspace(folder)))
    typer.echo(json.dumps(content, sort_keys=True) if format is Format.json else "\n".join(_lines(content)))


def _facts(bundle: Bundle) -> dict[str, Any]:
    change = bundle.change
    return {
        "schema_version": SCHEMA_VERSION,
        "fab": str(bundle.path),
        "app": str(bundle.app),
        "sha256": bundle.sha256,
        "version": bundle.version,
        "files": len(bundle.files),
        "first": bundle.first,
        "added": list(change.added),
        "removed": list(change.removed),
        "changed": list(change.changed),
    }


def _lines(content: dict[str, Any]) -> list[str]:
    found = [
        f"package {content['fab']}",
        f"  version {content['version']} · {content['files']} files",
        f"  SHA-256 {content['sha256']}",
    ]
    words = {"added": "+", "removed": "-", "changed": "~"}
    changes = [f"  {sign} {name}" for word, sign in words.items() for name in content[word]]
    if content["first"]:
        found.append("  the first package of this workspace")
    elif changes:
        found += ["  since the last package (each site must approve it anew):", *changes]
    else:
        found.append("  nothing changed since the last package")
    return found
