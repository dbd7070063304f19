"""``cardionets-server package``: build the code that the sites are asked to approve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.commands.answer import Format, FormatOption, answer, answering

if TYPE_CHECKING:
    from server.bundle import Bundle


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(package)


def package(
    folder: Annotated[Path, typer.Argument(help="the coordinator's workspace", metavar="DIR")] = Path(),
    format: FormatOption = Format.table,
) -> None:
    """Build the code package from what is installed here, and print its hash and what changed.

    Writes code/NAME-VERSION.fab, code/app and code/package.json. Sites run a package only after their IT
    approved its SHA-256; the same code has the same one on any machine.
    """
    from cardionets_core.config.workspace import open_workspace
    from server.bundle import build_bundle

    with answering(format):
        content = _facts(build_bundle(open_workspace(folder)))
    answer(content, _lines, format)


def _facts(bundle: Bundle) -> dict[str, Any]:
    change = bundle.change
    return {
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
