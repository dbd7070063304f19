"""Watching a study: the live view on a terminal, plain lines elsewhere, and following it to its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CheckpointError, QuorumNotMetError, StudyPausedError, error_codes
from cardionets_core.service.state import read_json
from server.link.wanted import RESULT, RUN, read_wanted
from server.overview import overview, overview_lines
from server.watch_view import watch_view

LOOK_S = 1.0


def live(workspace: Workspace) -> None:
    """Show the overview until the study ends."""
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        follow(
            workspace, tell=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
        )
        return
    with Live(console=console, refresh_per_second=4) as view:
        while True:
            view.update(watch_view(overview(workspace)))
            if _ended(workspace):
                return
            time.sleep(LOOK_S)


def follow(workspace: Workspace, *, tell: Callable[[str], None]) -> dict[str, Any]:
    """Tell of every change until the study ends.

    Returns:
        JSON-ready: how it ended, with the ``exit_code`` of its cause.
    """
    told: list[str] = []
    while True:
        ended = _ended(workspace)
        lines = [line for line in overview_lines(overview(workspace)) if " left" not in line]
        steady = [line.partition(", heard")[0] for line in lines]
        for line, key in zip(lines, steady, strict=True):
            if key not in told:
                tell(line)
        told = steady
        if ended:
            return _outcome(workspace)
        time.sleep(LOOK_S)


def _ended(workspace: Workspace) -> bool:
    wanted = read_wanted(workspace)
    return wanted is None or wanted.wanted != RUN


def _outcome(workspace: Workspace) -> dict[str, Any]:
    wanted = read_wanted(workspace)
    if wanted is None:
        return {"schema_version": 1, "status": "not begun", "exit_code": 0}
    result = read_json(wanted.out / RESULT) or {}
    code = str(result.get("paused", {}).get("code", "")) if wanted.outcome != "completed" else ""
    kinds = error_codes()
    exit_code = 0
    if wanted.outcome != "completed":
        known = kinds.get(code)
        exit_code = (known or (StudyPausedError if wanted.outcome == "paused" else CheckpointError)).exit_code
    return {
        "schema_version": 1,
        "status": wanted.outcome,
        "code": code,
        "why": wanted.why,
        "model_digest": result.get("model_digest"),
        "folder": str(wanted.out),
        "exit_code": exit_code or (0 if wanted.outcome == "completed" else QuorumNotMetError.exit_code),
    }
