"""What the coordinator wants of the study: kept on disk, so that a restarted service goes on with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.service.state import read_json

WANTED = "wanted.json"
RESULT = "result.json"
RUN_LOCK = "run.lock"
"""In the run folder: held by the ServerApp that works there."""
RUN = "run"
NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A study that was submitted.

    Attributes:
        study: its name.
        study_digest: of the document.
        out: the run folder.
        app: the folder of the bundle.
        wanted: ``run`` while it is to go on, else ``nothing``.
        outcome: ``completed``, ``paused`` or ``failed`` once it has ended.
        why: in words, where it did not complete.
        run_id: Flower's number of the last run; empty before the first.
        submitted_s: unix time of the last submission.
        tries: submissions in a row without a finished round.
        rounds: newest checkpoint at the last submission.
        initial: folder of given weights, or empty.
        track: whether MLflow's store is written.
        minimum_free_bytes: below this the study pauses.
    """

    study: str
    study_digest: str
    out: Path
    app: Path
    wanted: str = RUN
    outcome: str = ""
    why: str = ""
    run_id: str = ""
    submitted_s: float = 0.0
    tries: int = 0
    rounds: str = ""
    initial: str = ""
    track: bool = True
    minimum_free_bytes: int = 0

    def changed(self, **changes: Any) -> Wanted:
        """The same with some values replaced."""
        return replace(self, **changes)


def read_wanted(workspace: Workspace) -> Wanted | None:
    """What is wanted, or None before the first ``run``."""
    content = read_json(workspace.state / WANTED)
    if content is None:
        return None
    content.pop("schema_version", None)
    return Wanted(**content | {"out": Path(content["out"]), "app": Path(content["app"])})


def write_wanted(workspace: Workspace, wanted: Wanted) -> None:
    """Keep what is wanted."""
    content = asdict(wanted) | {"schema_version": 1, "out": str(wanted.out), "app": str(wanted.app)}
    write_json(workspace.state / WANTED, content)


def newer_result(wanted: Wanted) -> dict[str, Any] | None:
    """The result that the last submission wrote, if it wrote one."""
    path = wanted.out / RESULT
    if not path.exists() or path.stat().st_mtime < wanted.submitted_s:
        return None
    return read_json(path)
