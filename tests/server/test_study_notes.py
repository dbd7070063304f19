"""What ``status`` says before a study begins, between its phases, and after its process or service ended."""

from __future__ import annotations

import os
import time

import pytest

from cardionets_core.config.study import Study, read_study
from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.service.state import identity, only_one
from server.approved_plans import approve_plan
from server.checkpoint import Checkpoint
from server.link.admission import Heartbeats
from server.link.guard import HEARTBEAT
from server.link.wanted import RUN_LOCK, Wanted, write_wanted
from server.members import Members
from server.overview import overview, overview_lines
from server.progress import Event
from server.provision.admission import provision
from server.reply_journal import ReplyJournal
from server.status import StatusBoard
from server.study_notes import primary_note, waited_for
from server.workspace_folder import make_workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    make_workspace(tmp_path / "hub", address="127.0.0.1:9092", consortium="heart")
    return Workspace(tmp_path / "hub")


def served(workspace):
    content = {"supervisor": identity(os.getpid()), "status": "ok", "processes": {}}
    write_json(workspace.state / "service.json", content)


def begun(workspace) -> Wanted:
    found = Wanted(study="s", study_digest="d", out=workspace.runs / "s", app=workspace.code / "app")
    found.out.mkdir(parents=True)
    write_wanted(workspace, found)
    return found


def said(workspace) -> str:
    return "\n".join(overview_lines(overview(workspace)))


def test_before_a_study_the_step_that_is_missing_is_named(workspace):
    study = read_study(workspace.study_yaml)
    assert "none of the" in said(workspace) and "cardionets-server admit DIR" in said(workspace)
    provision(workspace, [f"site-{number}" for number in range(study.sites.minimum)])
    assert "cardionets-server plan DIR --approve" in said(workspace)
    approve_plan(workspace, study)
    assert "cardionets-server start DIR" in said(workspace)
    served(workspace)
    assert "study: not begun; next: cardionets-server run DIR" in said(workspace)
    workspace.study_yaml.write_text(workspace.study_yaml.read_text() + "\nseed: 77\n")
    assert "next: cardionets-server run" not in said(workspace)


def test_a_study_whose_process_died_under_the_service_is_starting_again(workspace):
    served(workspace)
    wanted = begun(workspace)
    waiting = {"reason": "train", "until_s": 0.0, "sites": [{"site": "alpha", "node": "1"}]}
    write_json(wanted.out / "status.json", {"state": "running", "sites": [], "waiting_for": waiting})
    with only_one(wanted.out, name=RUN_LOCK):
        assert overview(workspace)["study"]["state"] == "running"
    content = overview(workspace)
    assert content["study"]["state"] == "starting again"
    text = "\n".join(overview_lines(content))
    assert "the service begins it again" in text and "waits for" not in text


def test_without_the_service_no_site_is_connected(workspace):
    provision(workspace, ["alpha"])
    begun(workspace)
    Heartbeats(workspace).note("alpha", HEARTBEAT, time.time())
    assert "nobody listens, heard 0 s ago" in said(workspace) and "connected" not in said(workspace)
    served(workspace)
    assert "connected, heard 0 s ago" in said(workspace)


def test_nodes_that_have_said_no_name_are_counted():
    node = {"site": "node-678048114512011710", "node": "678048114512011710"}
    assert waited_for({"reason": "census", "sites": [node]}) == "1 site not heard by name yet"
    mixed = [{"site": "alpha", "node": "5"}, node, {"site": "node-7", "node": "7"}]
    assert waited_for({"reason": "census", "sites": mixed}) == "alpha, 2 sites not heard by name yet"
    assert waited_for({"reason": "sites", "sites": []}) == "sites"
    assert waited_for({"reason": "train", "sites": [{"site": "node-7", "node": "5"}]}) == "node-7"


def test_a_metric_of_another_phase_is_named_with_it():
    primary = {"phase": 1, "name": "correlation", "higher_is_better": True, "values": [{"value": 0.5}]}
    study = {"phase": 1, "primary": primary, "best": {"0": {"task": "ecg_mae"}}}
    assert primary_note(study) == ["held-out correlation: 0.5000 (higher is better)"]
    assert primary_note(study | {"phase": 2})[0].startswith("held-out correlation of phase 1 ecg_mae: ")
    assert primary_note(study | {"phase": 2, "best": {}})[0].startswith("held-out correlation of phase 1: ")


def two_phases() -> Study:
    phases = [{"task": task, "rounds": 2, "local_steps": 1} for task in ("ecg_mae", "cmr_mae")]
    return Study.model_validate({"name": "two", "phases": phases})


def checkpoint(tmp_path, phase, number) -> Checkpoint:
    entries = [
        {"phase": 0, "round": each, "task": "ecg_mae", "primary": "r", "higher_is_better": True, "sites": []}
        for each in range(1, number + 1)
    ]
    place = {"phase": phase, "round": number, "study_digest": "", "history": entries}
    return Checkpoint(folder=tmp_path, layouts={}, digests={}, **place)


def place(board) -> tuple[int, str, int]:
    return tuple(board.content()[key] for key in ("phase", "task", "round"))


@pytest.mark.parametrize("resumed", [False, True])
def test_while_sites_are_asked_before_a_phase_the_status_stands_at_it(tmp_path, resumed):
    board = StatusBoard(tmp_path, two_phases(), members=Members(), journal=ReplyJournal(tmp_path))
    if not resumed:
        board.running(checkpoint(tmp_path, 0, 0))
        assert place(board) == (1, "ecg_mae", 0)
        counts = {"task": "ecg_mae", "phase": 1, "phases": 2, "rounds": 2}
        for number in (1, 2):
            board.event(Event(kind="trained", round=number, site="alpha", **counts))
            board.running(checkpoint(tmp_path, 0, number))  # as it is written
            board.event(Event(kind="round", round=number, **counts))
            assert place(board) == (1, "ecg_mae", number)
            if number == 1:
                board.running(checkpoint(tmp_path, 0, 1))  # the next round begins
                assert place(board) == (1, "ecg_mae", 1)
    board.running(checkpoint(tmp_path, 0, 2))
    assert place(board) == (2, "cmr_mae", 0)
    asked = Event(kind="census", task="cmr_mae", phase=2, phases=2, round=0, rounds=2, site="alpha")
    board.event(asked)
    assert place(board) == (2, "cmr_mae", 0)


def test_the_last_round_of_a_site_is_one_that_is_closed(tmp_path):
    board = StatusBoard(tmp_path, two_phases(), members=Members(), journal=ReplyJournal(tmp_path))
    board.running(checkpoint(tmp_path, 0, 0))
    counts = {"task": "ecg_mae", "phase": 1, "phases": 2, "rounds": 2, "site": "alpha"}
    board.event(Event(kind="trained", round=1, **counts))
    (row,) = board.content()["sites"]
    assert row["last_round"] is None and row["last_phase"] is None


def test_an_answer_of_the_next_phase_does_not_keep_the_round_of_the_one_before(tmp_path):
    board = StatusBoard(tmp_path, two_phases(), members=Members(), journal=ReplyJournal(tmp_path))
    counts = {"phases": 2, "rounds": 2, "site": "alpha"}
    board.event(Event(kind="trained", task="ecg_mae", phase=1, round=2, **counts))
    board.event(Event(kind="census", task="cmr_mae", phase=2, round=0, **counts))
    assert place(board) == (2, "cmr_mae", 0)
