"""Begins, continues and pauses the workspace's study: what is wanted is written, then Flower is asked.

Comes in: a workspace whose service runs. Goes out: ``state/wanted.json``, which the keeper follows from then
on, through crashes and restarts, until the study has completed or paused.
"""

from __future__ import annotations

import time
from pathlib import Path

from cardionets_core.config.changes import first_of
from cardionets_core.config.study import Study, read_study
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import ConfigError, ServiceDownError, UsageError
from cardionets_core.service.state import read_json, running_service
from server.approved_plans import approve_plan, changes_words, comparison
from server.link.control import Control
from server.link.keeper import finished_rounds, is_running, submit
from server.link.wanted import NOTHING, RESULT, RUN, Wanted, newer_result, read_wanted, write_wanted
from server.pause import PAUSE_REQUEST
from server.provision.roster import check_roster
from server.tracking.settings import write_settings

STOP_S = 40.0
ENDING_S = 30.0
MOST_CHANGES = 8
"""That are told where a study is not the approved one; `plan` tells all of them."""


def run_folder(workspace: Workspace, study: Study) -> Path:
    """Where a study's run lies; another study has another folder."""
    return workspace.runs / f"{study.name}-{study.digest[:12]}"


def begin(workspace: Workspace, *, initial: Path | None, track: bool, approve: bool = False) -> Wanted:
    """Begin the study of ``study.yaml``, or go on with what there is of it.

    Args:
        workspace: the coordinator's folder.
        initial: folder of the weights that the study names as ``initial``.
        track: whether the study is mirrored in MLflow, as ``server.yaml`` says where.
        approve: record the study as approved; else it must be the one that was approved last.

    Raises:
        ServiceDownError: the service does not run.
        ConfigError: the study cannot work, or is not the one that was approved.
        UsageError: a study runs already, or this one has completed.
    """
    _require_service(workspace)
    study = read_study(workspace.study_yaml)
    check_roster(workspace, study)
    _require_idle(workspace)
    if not approve:
        _require_approved(workspace, study)
    wanted = _begin(workspace, study, initial=initial, track=track)
    if approve:
        approve_plan(workspace, study)  # what cannot run was never begun, and is not approved either
    return wanted


def running_study(workspace: Workspace) -> Wanted | None:
    """The study of ``study.yaml`` where it is the one that runs now, else None."""
    wanted = read_wanted(workspace)
    if wanted is None or wanted.wanted != RUN or _is_ending(wanted):
        return None
    return wanted if read_study(workspace.study_yaml).digest == wanted.study_digest else None


def _begin(workspace: Workspace, study: Study, *, initial: Path | None, track: bool) -> Wanted:
    out = run_folder(workspace, study)
    if (read_json(out / RESULT) or {}).get("status") == "completed":
        raise UsageError(
            f"the study {study.name} has completed already",
            where=str(out),
            remedy="its model and result lie there; change study.yaml to run another",
        )
    _check(study, initial)
    from server.bundle import build_bundle

    bundle = build_bundle(workspace)
    out.mkdir(parents=True, exist_ok=True)
    (out / PAUSE_REQUEST).unlink(missing_ok=True)
    (out / "study.json").write_text(study.to_json() + "\n", encoding="utf-8")
    write_settings(out, workspace.config().tracking)
    wanted = Wanted(
        study=study.name,
        study_digest=study.digest,
        out=out,
        app=bundle.app,
        initial="" if initial is None else str(initial.expanduser().resolve()),
        track=track,
        minimum_free_bytes=workspace.config().minimum_free_bytes,
    )
    return _submit(workspace, wanted)


def go_on(workspace: Workspace) -> Wanted:
    """Go on with the study that was begun last.

    Raises:
        ServiceDownError: the service does not run.
        UsageError: no study was begun, it runs already, or it has completed.
    """
    _require_service(workspace)
    wanted = read_wanted(workspace)
    if wanted is None:
        raise UsageError(
            "no study was begun in this folder",
            where=str(workspace.root),
            remedy="begin it with `cardionets-server run DIR`",
        )
    _require_idle(workspace)
    study = read_study(workspace.study_yaml)
    if study.digest != wanted.study_digest:
        raise UsageError(
            f"study.yaml has changed since {wanted.study} was paused: it is another study now",
            where=str(workspace.study_yaml),
            remedy="undo the change to resume, or begin the new one with `cardionets-server run DIR`",
        )
    initial = Path(wanted.initial) if wanted.initial else None
    return _begin(workspace, study, initial=initial, track=wanted.track)


def take_back_pause(workspace: Workspace) -> Wanted | None:
    """Let the study of ``study.yaml``, which was asked to pause after its round, run on.

    Returns:
        The study that runs on; None where it does not run, was not asked to pause, or pauses already.
    """
    wanted = running_study(workspace)
    if wanted is None or running_service(workspace.state) is None:
        return None
    try:
        (wanted.out / PAUSE_REQUEST).unlink()
    except FileNotFoundError:
        return None
    return wanted


def was_paused(workspace: Workspace) -> bool:
    """Whether the study of ``study.yaml`` was begun before and has paused, or is about to."""
    wanted = read_wanted(workspace)
    if wanted is None or read_study(workspace.study_yaml).digest != wanted.study_digest:
        return False
    return wanted.outcome == "paused" or (newer_result(wanted) or {}).get("status") == "paused"


def ask_to_pause(workspace: Workspace, *, now: bool = False) -> None:
    """Ask the running study to pause after its round, or end its run at once.

    Raises:
        UsageError: no study runs.
        ServiceDownError: it was to end at once, and the SuperLink does not answer.
    """
    wanted = read_wanted(workspace)
    if wanted is None or wanted.wanted != RUN:
        raise UsageError(
            "no study runs", where=str(workspace.root), remedy="see `cardionets-server status DIR`"
        )
    if not now:
        request = wanted.out / PAUSE_REQUEST
        request.parent.mkdir(parents=True, exist_ok=True)
        request.touch()
        return
    _require_service(workspace)
    write_wanted(
        workspace, wanted.changed(wanted=NOTHING, outcome="paused", why="the coordinator paused it at once")
    )
    Control(workspace).stop(wanted.run_id)
    end = time.monotonic() + STOP_S
    while is_running(wanted.out) and time.monotonic() < end:
        time.sleep(0.2)


def _submit(workspace: Workspace, wanted: Wanted) -> Wanted:
    run_id = submit(Control(workspace), wanted)
    wanted = wanted.changed(
        run_id=run_id, submitted_s=time.time(), tries=1, rounds=finished_rounds(wanted.out)
    )
    write_wanted(workspace, wanted)
    return wanted


def _require_service(workspace: Workspace) -> None:
    if running_service(workspace.state) is None:
        raise ServiceDownError(
            "the service of this folder does not run",
            where=str(workspace.root),
            remedy="start it: cardionets-server start DIR --background",
        )


def _require_approved(workspace: Workspace, study: Study) -> None:
    found = comparison(workspace, study)
    if found["is_this"]:
        return
    changed = first_of(changes_words(found), most=MOST_CHANGES)
    raise ConfigError(
        f"study.yaml has changed since its plan was approved ({changed})"
        if found["digest"]
        else "the plan of this study was not approved yet",
        where=str(workspace.study_yaml),
        remedy="see `cardionets-server plan DIR`; then `plan DIR --approve`, or `run DIR --approve`",
    )


def _require_idle(workspace: Workspace) -> None:
    end = time.monotonic() + ENDING_S
    wanted = read_wanted(workspace)
    while wanted is not None and _is_ending(wanted) and time.monotonic() < end:
        time.sleep(0.2)
        wanted = read_wanted(workspace)
    if wanted is not None and wanted.wanted == RUN:
        raise UsageError(
            f"the study {wanted.study} runs already",
            where=str(wanted.out),
            remedy="follow it with `watch` or `run --wait`; `pause` ends it after its round",
        )
    if wanted is not None and is_running(wanted.out):
        raise UsageError(
            f"the study {wanted.study} has not ended yet",
            where=str(wanted.out),
            remedy="wait a moment and try again",
        )


def _is_ending(wanted: Wanted) -> bool:
    """Whether the run has written its result, and only its last words are outstanding."""
    return newer_result(wanted) is not None and (wanted.wanted == RUN or is_running(wanted.out))


def _check(study: Study, initial: Path | None) -> None:
    from server.given_model import given_modules
    from server.plan import plan_of

    plan_of(study)
    given_modules(study.initial, initial, preset=study.models)
    if not study.initial and initial is not None:
        raise ConfigError(
            "the study names no initial weights, but a folder of them was given",
            where="study: initial",
            remedy="name module and digest in the study, or leave --initial out",
        )
