"""A run folder and what was begun in it: done away with, or gone on with if it is the same.

Comes in: the folder, and what is asked now. Goes out: a folder that is ready, with ``begun.json`` in it, or
one error with its remedy. The rounds themselves are taken up by the server, as in a deployment.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cardionets_core.config.changes import change_words, first_of, study_changes
from cardionets_core.config.study import Study
from cardionets_core.durable import write_json
from cardionets_core.errors import UsageError
from cardionets_core.plain_json import read_json
from server.app import RESULT
from simulation.scenario import Scenario

BEGUN = "begun.json"
RUN_PARTS = (
    BEGUN,
    "checkpoints",
    "rounds",
    "work",
    "requests",
    "status.json",
    "journal.jsonl",
    "report.html",
    "drawn.json",
    "model",
    "plots",
    "compare",
    "mlflow",
    "mlflow.db",
    "tracking.json",
    "tracked.json",
    "study.json",
    RESULT,
)
_MOST_CHANGES = 3


def clear_earlier(out: Path, *, replace: bool, resume: bool) -> None:
    """Do away with an earlier run, or keep all of it; hospitals are kept in any case.

    Args:
        out: the run folder.
        replace: do away with what an earlier run left.
        resume: go on with it; where there is none, there is nothing to do.

    Raises:
        UsageError: the folder holds a run and neither was asked for, or both were.
    """
    if replace and resume:
        raise UsageError(
            "--replace begins anew and --resume goes on: only one can be done",
            where="--resume",
            remedy="leave one of them out",
        )
    earlier = [name for name in RUN_PARTS if (out / name).exists()]
    if resume or not earlier:
        return
    if not replace:
        raise UsageError(
            f"{out} holds an earlier run",
            where="--out",
            remedy="choose another folder, or go on with that run: --resume, or do away with it: --replace",
        )
    for name in earlier:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # The sites answer an order once and keep their replies: a run that begins anew is to be worked on anew.
    for path in (out / "hospitals").glob("*/state/replies"):
        shutil.rmtree(path)


def note_begun(out: Path, study: Study, scenario: Scenario) -> None:
    """Write down what is begun, or find that it was begun before and is the same.

    Args:
        out: the run folder.
        study: as it will run.
        scenario: where its events and their seed come from.

    Raises:
        UsageError: another study, or another schedule of events, was begun in the folder; or it cannot go on,
            since an attacker in it repeats what was sent before.
    """
    now: dict[str, Any] = {
        "schema_version": 1,
        "scenario": scenario.name,
        "seed": scenario.seed,
        "study": study.model_dump(mode="json"),
        "events": [event.model_dump(mode="json", exclude_none=True) for event in scenario.events],
    }
    path = out / BEGUN
    if not path.exists():
        write_json(path, now)
        return
    before = read_json(path)
    differ = [key for key in ("study", "events", "seed") if before.get(key) != now[key]]
    if differ:
        changes = study_changes(before.get("study") or {}, now["study"])
        words = first_of([change_words(each.key, each.was, each.now) for each in changes], most=_MOST_CHANGES)
        raise UsageError(
            f"another run was begun here, its {' and '.join(differ)} differ{'s' * (len(differ) == 1)}"
            + (f": {words}" if words else ""),
            where=str(path),
            remedy="give what it was begun with, or --replace to begin anew",
        )
    if any(event.kind == "replay" for event in scenario.events):
        raise UsageError(
            "a site that replays needs what it sent before, which is not kept",
            where=str(path),
            remedy="begin anew: --replace",
        )
