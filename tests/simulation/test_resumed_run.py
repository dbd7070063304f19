"""A run that was stopped between rounds goes on, and ends as one that was not; what differs is refused."""

from __future__ import annotations

import io
import json
import shutil

import pytest

from cardionets_core.errors import QuorumNotMetError, UsageError
from simulation.run import RunRequest, run_scenario
from simulation.scenario import Scenario
from simulation.screen import Screen

HOSPITAL = {
    "layout": "local_wfdb",
    "patients": 20,
    "split": {"validation": 0.2, "test": 0.2},
    "policy": {"minimum_patients": 5, "minimum_cell": 1},
    "scanner": {"spacing_mm": 2.2, "pixels": 80, "frames": 20},
}
OPTIMISER = {"lr": 1e-3}
DOCUMENT = {
    "name": "stopped",
    "seed": 3,
    "hospitals": [{"site": site, **HOSPITAL} for site in ("alpha", "beta")],
    "study": {
        "name": "stopped",
        "seed": 1,
        "sites": {"minimum": 2, "deadline_s": 60},
        "aggregation": {"strategy": "fedavgm"},
        "phases": [
            {"task": "ecg_mae", "rounds": 3, "local_epochs": 1, "batch_size": 8, "optimiser": OPTIMISER}
        ],
    },
}


class Watched(Screen):
    """A screen that keeps the rounds, and ends the program after one of them."""

    def __init__(self, *, stop_after: int = 0) -> None:
        super().__init__(io.StringIO(), live=False, quiet=True)
        self.rounds: list[tuple[int, int]] = []
        self._stop_after = stop_after

    def event(self, event):
        if event.kind == "round":
            self.rounds.append((event.round, event.untimed))
            if event.round == self._stop_after:
                raise KeyboardInterrupt


def run(folder, *, document=DOCUMENT, stop_after=0, **more):
    screen = Watched(stop_after=stop_after)
    scenario = Scenario.model_validate(document)
    common = {"engine": "local", "cores": 1, "compare": False, "track": False}
    try:
        result = run_scenario(RunRequest(scenario=scenario, out=folder, **common, **more), screen)
    except KeyboardInterrupt:
        return None, screen.rounds
    return result, screen.rounds


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    result, rounds = run(folder)
    assert [number for number, _ in rounds] == [1, 2, 3]
    return folder, result


@pytest.fixture
def stopped(whole, tmp_path):
    """The same, stopped after its first round."""
    shutil.copytree(whole[0] / "hospitals", tmp_path / "hospitals", copy_function=shutil.copy2)
    shutil.rmtree(tmp_path / "hospitals" / "alpha" / "state" / "replies")
    shutil.rmtree(tmp_path / "hospitals" / "beta" / "state" / "replies")
    assert run(tmp_path, stop_after=1) == (None, [(1, 0)])
    return tmp_path


def test_it_ends_with_the_model_that_it_would_have_had(whole, stopped):
    result, rounds = run(stopped, resume=True)
    assert [number for number, _ in rounds] == [2, 3], "the first round is kept"
    assert result["model_digest"] == whole[1]["model_digest"] and result["status"] == "completed"
    assert [entry["round"] for entry in result["rounds"]] == [1, 2, 3]
    assert json.loads((stopped / "result.json").read_text()) == json.loads(json.dumps(result))
    # A run that is complete has no rounds left; what is made of it is made again.
    again, rounds = run(stopped, resume=True)
    assert rounds == [] and again["model_digest"] == result["model_digest"]


def test_what_would_not_be_the_same_run_is_refused_and_nothing_is_lost(stopped):
    before = sorted(path.name for path in stopped.rglob("*"))
    study = DOCUMENT["study"]
    offline = {"site": "beta", "kind": "offline", "rounds": [2, 2]}
    phases = [{**study["phases"][0], "rounds": 4}]
    for options, told in (
        ({}, "holds an earlier run.*--resume.*--replace"),
        ({"resume": True, "replace": True}, "only one"),
        ({"resume": True, "seed": 9}, "its study differs: seed: 1 -> 9"),
        ({"resume": True, "document": {**DOCUMENT, "events": [offline]}}, "its events differ"),
        (
            {"resume": True, "document": {**DOCUMENT, "study": {**study, "phases": phases}}},
            "phases.1.rounds: 3 -> 4",
        ),
    ):
        with pytest.raises(UsageError, match=f"(?s){told}"):
            run(stopped, **options)
    assert sorted(path.name for path in stopped.rglob("*")) == before
    assert run(stopped, resume=True)[0]["status"] == "completed"


def test_a_site_that_replays_cannot_go_on(whole, tmp_path):
    shutil.copytree(whole[0] / "hospitals", tmp_path / "hospitals", copy_function=shutil.copy2)
    document = {**DOCUMENT, "events": [{"site": "beta", "kind": "replay"}]}
    assert run(tmp_path, document=document, stop_after=1)[0] is None
    with pytest.raises(UsageError, match="replays"):
        run(tmp_path, document=document, resume=True)


def test_where_nothing_was_begun_it_begins(whole, tmp_path):
    shutil.copytree(whole[0] / "hospitals", tmp_path / "hospitals", copy_function=shutil.copy2)
    result, rounds = run(tmp_path, resume=True)
    assert len(rounds) == 3 and result["model_digest"] == whole[1]["model_digest"]


def test_a_run_that_paused_for_want_of_sites_goes_on_when_they_are_mended(whole, tmp_path):
    shutil.copytree(whole[0] / "hospitals", tmp_path / "hospitals", copy_function=shutil.copy2)
    site = tmp_path / "hospitals" / "beta" / "site.yaml"
    right = site.read_text()
    site.write_text(right.replace("minimum_patients: 5", "minimum_patients: 500"))
    with pytest.raises(QuorumNotMetError):
        run(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "paused"
    site.write_text(right)
    result, _ = run(tmp_path, resume=True)
    assert result["status"] == "completed" and result["model_digest"] == whole[1]["model_digest"]
