"""What the shell proposes after a TAB: names of shipped studies, and of the sites of a workspace.

Nothing here imports the library before it must: a proposal that takes a second is no help. Where nothing
can be proposed the shell falls back to file names.
"""

from __future__ import annotations

from pathlib import Path

import typer

from server.study_files import SHIPPED


def study_names(incomplete: str) -> list[str]:
    """Shipped studies that begin so."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml") if path.stem.startswith(incomplete))


def site_names(context: typer.Context, incomplete: str) -> list[str]:
    """Sites of the workspace on the line, or of the folder one is in; none where that is no workspace."""
    from cardionets_core.config.workspace import open_workspace
    from cardionets_core.errors import CardioNetsError
    from server.provision.registry import read_registry

    # An option that still waits for its value keeps the parser from giving the words before it their names.
    words = [word for word in context.args if not word.startswith("-")]
    try:
        rows = read_registry(
            open_workspace(Path((words or [context.params.get("folder") or "."])[0]))
        ).newest()
    except CardioNetsError:
        return []
    return sorted(row.site for row in rows if row.site.startswith(incomplete))
