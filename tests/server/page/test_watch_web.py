"""``watch --web``: what it serves of a workspace or a run folder, when it refuses; who was online when."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from cardionets_core.config.study import Study
from cardionets_core.config.workspace import open_workspace
from cardionets_core.durable import write_json
from cardionets_core.errors import UsageError
from cardionets_core.service.state import identity
from server.cli import cli
from server.link import admission
from server.link.admission import Heartbeats, heard_online, last_heard
from server.link.wanted import RUN_LOCK, Wanted, read_wanted, write_wanted
from server.overview import overview
from server.page.web import StudyPages
from server.workspace_folder import make_workspace


@pytest.fixture
def workspace(tmp_path):
    make_workspace(tmp_path / "hub", address=None, consortium=None)
    return open_workspace(tmp_path / "hub")


def begin(workspace):
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    study = Study.model_validate({"name": "pilot", "seed": 1, "phases": [phase]})
    out = workspace.runs / "pilot-1"
    write_wanted(workspace, Wanted(study="pilot", study_digest=study.digest, out=out, app=workspace.code))
    return study, out


def test_a_workspace_without_a_study_has_a_page_that_waits(workspace):
    pages = StudyPages(workspace.root)
    assert "No study yet" in pages.show().page and "<script>" in pages.show().page
    study, out = begin(workspace)
    assert "was submitted" in pages.show().part
    out.mkdir(parents=True)
    (out / "study.json").write_text(study.to_json())
    shown = pages.show()
    assert "pilot" in shown.part and shown.part in shown.page


def test_the_page_of_a_workspace_knows_who_is_online(workspace):
    study, out = begin(workspace)
    out.mkdir(parents=True)
    (out / "study.json").write_text(study.to_json())
    Heartbeats(workspace).note("alpha", admission.HEARTBEAT, 1000.0)
    status = {"state": "running", "study_digest": study.digest, "started_s": 900.0, "updated_s": 1100.0,
              "sites": [{"site": "alpha", "phases": {}}]}  # fmt: skip
    (out / "status.json").write_text(json.dumps(status))
    part = StudyPages(workspace.root).show().part
    assert 'class="online"' in part and "stopped" in part


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"wanted": "nothing", "outcome": "paused", "why": "the coordinator paused it at once"}, "paused"),
        ({}, "starting again"),
    ],
)
def test_page_and_status_have_one_word_for_a_run_that_was_cut_off(workspace, changes, state):
    content = {"supervisor": identity(os.getpid()), "status": "ok", "processes": {}}
    write_json(workspace.state / "service.json", content)
    study, out = begin(workspace)
    out.mkdir(parents=True)
    (out / "study.json").write_text(study.to_json())
    (out / RUN_LOCK).touch()
    wanted = read_wanted(workspace)
    write_wanted(workspace, wanted.changed(**changes))
    status = {"state": "running", "study_digest": study.digest, "sites": []}
    (out / "status.json").write_text(json.dumps(status))
    assert overview(workspace)["study"]["state"] == state
    part = StudyPages(workspace.root).show().part
    assert f'">{state}</span>' in part and "stopped" not in part and "Nothing of this study" not in part


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "x").mkdir(parents=True)])
def test_any_other_folder_is_refused(tmp_path, make):
    make(tmp_path / "f")
    with pytest.raises(UsageError, match="neither a workspace nor the folder of a run"):
        StudyPages(tmp_path / "f")


def test_options_of_the_page_need_the_page(tmp_path):
    for options in (["--port", "8000"], ["--open"]):
        found = CliRunner().invoke(cli, ["watch", str(tmp_path), *options])
        assert isinstance(found.exception, UsageError) and "--web" in str(found.exception)


def test_stretches_of_being_online_end_where_a_site_was_not_heard(workspace, monkeypatch):
    monkeypatch.setattr(admission, "WRITE_EVERY_S", -1.0)
    beats = Heartbeats(workspace)
    for moment in (0.0, 30.0, 60.0, 200.0, 230.0):
        beats.note("alpha", admission.HEARTBEAT, moment)
    assert heard_online(workspace.state) == {"alpha": [[0.0, 60.0], [200.0, 230.0]]}
    again = Heartbeats(workspace)
    again.note("alpha", "call", 240.0)
    assert heard_online(workspace.state) == {"alpha": [[0.0, 60.0], [200.0, 240.0]]}
    assert last_heard(workspace)["alpha"]["heartbeat_s"] == 230.0
    for number in range(admission.MOST_STRETCHES + 5):
        again.note("alpha", admission.HEARTBEAT, 1000.0 + 100.0 * number)
    assert len(heard_online(workspace.state)["alpha"]) == admission.MOST_STRETCHES


@pytest.mark.parametrize("content", ["[]", "{", '{"online": 3}'])
def test_torn_heartbeats_are_none(workspace, content):
    workspace.state.mkdir(exist_ok=True)
    (workspace.state / admission.HEARTBEATS).write_text(content)
    assert heard_online(workspace.state) == {}
