"""A finished run, read and held against itself before anything of it is released (after step 14 of the walk).

Comes in: a workspace or a run folder. Goes out: the study, the result, the model whose files have their
digests, and the workspace that the run lies in. What does not fit together is refused as torn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study, study_from_json
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CardioNetsError, CheckpointError, FolderMissingError, UsageError
from cardionets_core.plain_json import read_json
from cardionets_core.release.refusals import StudyUnfinishedError
from cardionets_core.training.model_folder import MODEL, StoredModel, read_model_folder
from server.model_facts import model_facts
from server.report import SCHEMA_VERSION, finite

RESULT, STUDY, STATUS = "result.json", "study.json", "status.json"
_AGAIN = "restore the run folder from its backup; a torn run is not released"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run whose study has completed.

    Attributes:
        folder: of the run.
        workspace: that it lies in; None for one that lies elsewhere, as in simulation.
        study: that was run.
        result: content of ``result.json``.
        model: its model.
        model_json: content of ``model.json``.
    """

    folder: Path
    workspace: Workspace | None
    study: Study
    result: Mapping[str, Any]
    model: StoredModel
    model_json: Mapping[str, Any]


def find_run(folder: Path) -> Path:
    """The run folder of a path: itself, or the one run of a workspace that has completed.

    Raises:
        FolderMissingError: there is neither.
        UsageError: a workspace has several; says which.
    """
    if (folder / STATUS).is_file() or (folder / RESULT).is_file():
        return folder
    workspace = Workspace(folder)
    if not workspace.server_yaml.is_file():
        raise FolderMissingError(
            "there is neither a workspace nor a run folder",
            where=str(folder),
            remedy="name DIR, or DIR/runs/NAME-DIGEST, or the folder of a simulated run",
        )
    runs = sorted(path.parent for path in workspace.runs.glob(f"*/{STATUS}"))
    done = [run for run in runs if _status(run) == "completed"]
    if len(done) > 1:
        raise UsageError(
            f"{len(done)} studies of this workspace have completed: {', '.join(run.name for run in done)}",
            where=str(workspace.runs),
            remedy="name the one to release: DIR/runs/NAME-DIGEST",
        )
    if not done and not runs:
        raise StudyUnfinishedError(
            "no study has run in this workspace",
            where=str(workspace.runs),
            remedy="begin one: cardionets-server run DIR",
        )
    return (done or runs)[0]


def read_run(folder: Path) -> FinishedRun:
    """Read a run folder and hold its parts against each other.

    Raises:
        StudyUnfinishedError: the study has not completed.
        CheckpointError: something is absent, of another study, or was changed.
    """
    result = _json(folder / RESULT, absent=_unfinished(folder, "it has no result"))
    if not isinstance(result, dict) or result.get("schema_version") != SCHEMA_VERSION:
        raise _torn("the result is none of this version", folder / RESULT)
    if result.get("status") != "completed":
        why = (result.get("paused") or {}).get("what", "it did not complete")
        raise _unfinished(folder, str(why))
    try:
        study = study_from_json(
            (folder / STUDY).read_text(encoding="utf-8").rstrip("\n"), digest=str(result["study_digest"])
        )
    except (OSError, ValueError, KeyError, CardioNetsError) as error:
        raise _torn("the study is not the one that the result names", folder / STUDY) from error
    model = read_model_folder(folder / "model")
    content = _json(folder / "model" / MODEL, absent=_torn("there is no model", folder / "model"))
    try:
        told = finite(model_facts(study, [_known(entry) for entry in result["rounds"]]))
        fits = {name: content[name] for name in told} == told
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise _torn("the result's rounds are not those of its study", folder / RESULT) from error
    if not fits:
        raise _torn("model and result tell of different measurements", folder / "model" / MODEL)
    if dict(model.digests) != result.get("modules") or model.model_digest != result.get("model_digest"):
        raise _torn("the model is not the one that the result names", folder / "model")
    if model.study_digest != study.digest:
        raise _torn("the model is of another study", folder / "model")
    return FinishedRun(
        folder=folder,
        workspace=_workspace_of(folder),
        study=study,
        result=result,
        model=model,
        model_json=content,
    )


def _known(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without the numbers that JSON could not say."""
    test = entry.get("test") or {}
    pooled = {name: value for name, value in test.get("pooled", {}).items() if value is not None}
    return {**entry, "test": {**test, "pooled": pooled}}


def _workspace_of(folder: Path) -> Workspace | None:
    root = folder.resolve().parent.parent
    workspace = Workspace(root)
    inside = workspace.server_yaml.is_file() and folder.resolve().parent == workspace.runs
    return workspace if inside else None


def _status(run: Path) -> str:
    try:
        return str(read_json(run / STATUS)["state"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _json(path: Path, *, absent: CardioNetsError) -> Any:
    if not path.exists():
        raise absent
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise _torn("the file cannot be read", path) from error


def _torn(what: str, where: Path) -> CheckpointError:
    return CheckpointError(what, where=str(where), remedy=_AGAIN)


def _unfinished(folder: Path, why: str) -> StudyUnfinishedError:
    return StudyUnfinishedError(
        f"the study has not completed: {why}",
        where=str(folder),
        remedy="finish it (cardionets-server resume DIR; a simulated one is run anew), then release",
    )
