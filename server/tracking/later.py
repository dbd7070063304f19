"""Sends what a store missed, when a person asks for it (``cardionets-server track``).

Comes in: a workspace or a run folder. Goes out: what the store holds now, JSON-ready. A study that runs sends
for itself; then this says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.tracking import Tracking, checked_uri
from cardionets_core.errors import PeerError, UsageError
from cardionets_core.plain_json import read_json
from cardionets_core.service.state import only_one
from server.tracking.note import LOCK
from server.tracking.sending import RESULT, Sender, State, finished_history
from server.tracking.settings import STORE, read_settings

OTHER_S = 5.0
STUDY = "study.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterRequest:
    """What is asked for.

    Attributes:
        folder: a workspace or a run folder.
        uri: another store than that of the folder; None for that one.
        experiment: another name in it; None for that of the folder.
        register: whether the model is registered, where the folder's settings want it.
        dry_run: only say what is missing.
    """

    folder: Path
    uri: str | None = None
    experiment: str | None = None
    register: bool = True
    dry_run: bool = False


def send_later(request: LaterRequest) -> dict[str, Any]:
    """Send what is missing.

    Returns:
        ``tracking`` as in ``result.json``, with ``study``, ``folder``, ``rounds``, ``rounds_sent``, ``look``
        and ``exit_code``.

    Raises:
        UsageError: the folder holds no study, or a study that runs sends for itself.
        ConfigError: the address holds a secret, or is of no kind that MLflow stores to.
    """
    folder = run_folder_of(request.folder)
    settings = _settings(request, folder)
    history = finished_history(folder)
    with only_one(folder, name=LOCK, what="the sending of this study", patience_s=OTHER_S):
        sender = Sender(folder, settings)
        if not request.dry_run:
            sender.send(state_of(folder))
    note = sender.note
    found = sender.summary()
    sent = sum(phase.whole for phase in note.phases)
    ended = state_of(folder) == "completed"
    if sent < len(history) or (ended and not note.finished):
        found |= {"status": "behind", "missing": note.missing or ["rounds"], "reason": note.reason}
    return {
        **found,
        "study": str(read_json(folder / STUDY)["name"]),
        "folder": str(folder),
        "rounds": len(history),
        "rounds_sent": sent,
        "look": _look(folder, settings),
        "exit_code": PeerError.exit_code if found["status"] == "behind" else 0,
    }


def run_folder_of(folder: Path) -> Path:
    """The run folder that a person means: itself, or the newest of a workspace.

    Raises:
        UsageError: there is no folder, or no study in it.
    """
    folder = folder.expanduser().resolve()
    if (folder / STUDY).is_file():
        return folder
    if not folder.is_dir():
        raise UsageError(
            "there is no such folder, and no study was begun in it",
            where=str(folder),
            remedy="name a workspace, or a run folder such as DIR/runs/NAME-DIGEST",
        )
    runs = [path.parent for path in (folder / "runs").glob(f"*/{STUDY}")]
    if not runs:
        raise UsageError(
            "no study was begun in this folder",
            where=str(folder),
            remedy="name a workspace, or a run folder such as DIR/runs/NAME-DIGEST",
        )
    return max(runs, key=lambda path: (path / STUDY).stat().st_mtime)


def state_of(folder: Path) -> State:
    """How a study stands, as its result says; one without a result has not ended."""
    try:
        status = read_json(folder / RESULT, most_bytes=1_000_000_000)["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "running"
    return "completed" if status == "completed" else "paused"


def _settings(request: LaterRequest, folder: Path) -> Tracking:
    settings = read_settings(folder)
    changes: dict[str, Any] = {"register_model": settings.register_model and request.register}
    if request.uri is not None:
        changes |= {"uri": checked_uri(request.uri, where="--uri"), "registry_uri": ""}
    if request.experiment is not None:
        changes["experiment"] = request.experiment
    return settings.model_copy(update=changes)


def _look(folder: Path, settings: Tracking) -> str:
    """How to look at it."""
    if settings.uri.startswith(("http:", "https:")):
        return settings.uri
    store = settings.uri or f"sqlite:///{folder / STORE}"
    # Its four workers, as it starts them by itself, are ended as too slow on a small machine.
    return f"mlflow ui --workers 1 --backend-store-uri {store}"
