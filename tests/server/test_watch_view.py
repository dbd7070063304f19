"""The live view says what the lines of ``status`` say, on terminals of any width."""

import io

import pytest
from rich.console import Console

from cardionets_core.config.workspace import Workspace
from server import live
from server.overview import overview_lines
from server.watch_view import BLOCKS, CURVE, curve, watch_view


def site(name, **changes):
    row = {
        "site": name, "status": "admitted", "certificate_days_left": 300.0, "heartbeat_s_ago": 5.0,
        "connected": True, "configured": True, "says_of_phase": "serves", "trained": "round 2 of phase 3",
        "code": "", "patients": {"train": 40, "test": 19}, "versions": {"cardionets": "0.1.0"},
        "role": "member",
    }  # fmt: skip
    return {**row, **changes}


def content(**study):
    told = {
        "state": "running", "name": "demo", "phase": 3, "phases": 4, "task": "align", "round": 7,
        "rounds": 12,
        "best": {
            "0": {"task": "ecg_mae", "metric": "correlation", "value": 0.1234, "round": 2},
            "1": {"task": "cmr_mae", "metric": "correlation", "value": 0.25, "round": 2},
            "2": {"task": "align", "metric": "recall@5", "value": 0.5, "round": 4},
        },
        "primary": {"name": "recall@5", "higher_is_better": True,
                    "values": [{"value": 0.25}, {"value": 0.5}]},
        "pause_requested": True, "left_s": 312.4, "folder": "runs/demo", "why": "",
        "waiting_for": {"sites": [{"site": "lakeside"}], "until_s": 1_700_000_000.0, "reason": ""},
    }  # fmt: skip
    return {
        "address": "cmr.example.org:9443",
        "warn_days": 30,
        "service": {"status": "ok", "processes": {"superlink": {"state": "ready", "restarts": 3}}},
        "sites": [
            site("lakeside"),
            site("northfield", connected=False, certificate_days_left=12.0, code="invalid-reply"),
            site("intensive", configured=False, says_of_phase="phase-not-permitted", trained=""),
            site("harbour", status="revoked"),
            site("new", heartbeat_s_ago=None, connected=False, patients=None, versions=None, trained=""),
        ],
        "study": {**told, **study},
        "failures": [{"where": "northfield", "what": "it has not approved", "remedy": "approve FOLDER"}],
    }


def drawn(facts, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(watch_view(facts))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 120, 200])
def test_every_word_of_the_lines_is_on_the_terminal(width):
    facts = content()
    said = "".join(drawn(facts, width).split())
    for line in overview_lines(facts):
        for word in line.replace("·", " ").split():
            if word not in ("admitted", "trained", "sites"):  # what the table's heads say
                assert word.rstrip(":,;") in said, word


@pytest.mark.parametrize("width", [50, 80])
def test_a_narrow_terminal_cuts_no_name_and_no_cause(width):
    lines = drawn(content(), width).splitlines()
    assert max(map(len, lines)) <= width
    for row in content()["sites"]:
        assert any(line.startswith(row["site"]) for line in lines)
    assert "! northfield: it has not approved" in lines


def test_finished_phases_stand_with_their_best_and_the_running_one_with_its_rounds():
    lines = drawn(content(), 120).splitlines()
    (first,) = [line for line in lines if "ecg_mae" in line]
    assert "done" in first and "best correlation 0.1234" in first
    (running,) = [line for line in lines if " align " in line]
    assert "3/4" in running and "round 7/12" in running and "done" not in running


@pytest.mark.parametrize("state", ["not begun", "stopped", "completed", "failed", "starting"])
def test_a_study_in_any_state_is_drawn(state):
    study = {"state": state} if state == "not begun" else {**content()["study"], "state": state}
    facts = {**content(), "study": study, "sites": []}
    assert state in drawn(facts, 80)
    assert "sites: none admitted yet" in drawn(facts, 80)


def test_the_curve_goes_from_the_lowest_to_the_highest():
    assert curve([0.0, 1.0, 0.5]) == BLOCKS[0] + BLOCKS[-1] + BLOCKS[4]
    assert curve([2.0, 2.0]) == BLOCKS[0] * 2
    assert len(curve(list(range(100)))) == CURVE


def test_without_a_terminal_no_line_is_broken(monkeypatch, tmp_path, capsys):
    line = "! alpha: " + "word " * 40 + "end"
    monkeypatch.setattr(live, "overview", lambda workspace: {})
    monkeypatch.setattr(live, "overview_lines", lambda content: [line])
    live.live(Workspace(tmp_path))
    assert capsys.readouterr().out == f"{line}\n"
