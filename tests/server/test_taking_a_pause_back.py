"""A pause that is taken back is told of: while the round still runs, and after the study has paused."""

from __future__ import annotations

import json
import os
import time

import pytest
import yaml

from cardionets_core.config.study import read_study
from cardionets_core.config.workspace import Workspace
from cardionets_core.durable import write_json
from cardionets_core.service.state import identity
from server import studying
from server.commands import service
from server.commands.answer import Format
from server.link.wanted import Wanted, read_wanted, write_wanted
from server.studying import ask_to_pause
from server.workspace_folder import make_workspace

PHASE = {"task": "ecg_mae", "rounds": 1, "local_steps": 1, "batch_size": 2, "optimiser": {"lr": 1e-3}}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    make_workspace(tmp_path / "hub", address="127.0.0.1:9092", consortium="heart")
    found = Workspace(tmp_path / "hub")
    found.study_yaml.write_text(yaml.safe_dump({"name": "s", "phases": [PHASE]}))
    return found


@pytest.fixture
def wanted(workspace) -> Wanted:
    digest = read_study(workspace.study_yaml).digest
    found = Wanted(study="s", study_digest=digest, out=workspace.runs / "s", app=workspace.code / "app",
                   run_id="7", submitted_s=time.time() - 1000, tries=1)  # fmt: skip
    found.out.mkdir(parents=True)
    write_wanted(workspace, found)
    return found


def serve(workspace):
    """The service runs: this process stands for it."""
    content = {"supervisor": identity(os.getpid()), "status": "ok", "processes": {}}
    write_json(workspace.state / "service.json", content)


@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_pause_that_no_round_has_honoured_yet_is_taken_back(workspace, wanted, run, command):
    serve(workspace)
    ask_to_pause(workspace)
    done = run("cardionets-server", command, workspace.root, "--format", "json")
    assert done.returncode == 0 and "the pause is taken back: the study s runs on" in done.stderr
    assert json.loads(done.stdout)["run_id"] == "7"
    assert not (wanted.out / "requests" / "pause").exists() and read_wanted(workspace) == wanted
    again = run("cardionets-server", command, workspace.root)
    assert again.returncode == 2 and "runs already" in again.stderr and "taken back" not in again.stderr


def test_a_pause_is_not_taken_back_where_nothing_could_go_on(workspace, wanted, run):
    ask_to_pause(workspace)
    done = run("cardionets-server", "run", workspace.root)
    assert done.returncode != 0 and "does not run" in done.stderr and "taken back" not in done.stderr
    assert (wanted.out / "requests" / "pause").exists()


@pytest.mark.parametrize("noted", [True, False], ids=["the keeper knows", "only its result says so"])
def test_a_study_that_has_paused_goes_on_and_says_so(workspace, wanted, run, monkeypatch, noted):
    serve(workspace)
    if noted:
        write_wanted(workspace, wanted.changed(wanted="nothing", outcome="paused"))
    else:
        write_json(wanted.out / "result.json", {"status": "paused", "paused": {}})
    monkeypatch.setattr(studying, "_require_idle", lambda workspace: None)
    monkeypatch.setattr(studying, "_begin", lambda workspace, study, **options: wanted)
    done = run("cardionets-server", "run", workspace.root, "--approve")
    assert done.returncode == 0, done.stderr
    assert "the pause is taken back: the study s goes on where it stopped" in done.stderr


def test_a_study_that_is_begun_says_nothing_of_a_pause(workspace, wanted, run, monkeypatch):
    serve(workspace)
    write_wanted(workspace, wanted.changed(study_digest="another", wanted="nothing", outcome="paused"))
    monkeypatch.setattr(studying, "_begin", lambda workspace, study, **options: wanted)
    done = run("cardionets-server", "run", workspace.root, "--approve")
    assert done.returncode == 0 and "pause" not in done.stderr


def test_who_follows_a_study_to_its_pause_is_told_the_line_that_goes_on(workspace, wanted, capsys):
    write_wanted(workspace, wanted.changed(wanted="nothing", outcome="paused"))
    with pytest.raises(SystemExit):
        service._follow(workspace, Format.json)
    told = capsys.readouterr()
    assert f"cardionets-server resume {workspace.root}" in told.err
    assert json.loads(told.out)["status"] == "paused"
