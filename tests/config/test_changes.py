"""What differs between two studies: the weightiest first, a line for a phase, nothing that says nothing."""

import json
from itertools import pairwise

import pytest

from cardionets_core.config.changes import Change, change_words, first_of, study_changes
from cardionets_core.config.study import Study
from server.study_files import find_study

PHENOTYPE = {"task": "phenotype", "rounds": 2}


def demo(**changed):
    from cardionets_core.config.study import read_study

    content = json.loads(read_study(find_study("demo")).to_json()) | changed
    return json.loads(Study.model_validate(content).to_json())


def told(before, after):
    return [change_words(each.key, each.was, each.now) for each in study_changes(before, after)]


def test_keys_that_changed_are_told_with_both_values():
    before = {"phases": [{"rounds": 2, "task": "a"}], "privacy": {"mechanism": "none"}, "same": 1}
    after = {
        "phases": [{"rounds": 3, "task": "a"}, {"rounds": 1, "task": "b"}],
        "privacy": {"mechanism": "none"},
        "same": 1,
    }
    assert study_changes(before, after) == [
        Change(key="phases.2", was=None, now="b"), Change(key="phases.1.rounds", was=2, now=3)
    ]  # fmt: skip


def test_what_weighs_most_comes_first_and_phases_that_went_are_a_line_each():
    before = demo()
    tasks = [phase["task"] for phase in before["phases"]]
    private = {"mechanism": "dp_sgd", "epsilon": 3.0}
    after = demo(name="other", seed=77, privacy=private, phases=before["phases"][:1])
    after["phases"][0]["local_steps"] = 8
    lines = told(before, after)
    assert lines[0] == f"name: {before['name']} -> other"
    assert lines[1:3] == ["privacy.mechanism: none -> dp_sgd", "privacy.epsilon: nothing -> 3.0"]
    gone = [f"phase {number} ({task}) is gone" for number, task in enumerate(tasks[1:], start=2)]
    assert lines[3 : 3 + len(gone)] == gone
    assert lines[-1].startswith("seed: ") and len(lines) == len(gone) + 5
    assert f"phases.1.local_steps: {json.dumps(before['phases'][0]['local_steps'])} -> 8" in lines


def test_a_phase_is_compared_with_the_phase_that_it_was():
    before = demo()
    shorter = demo(phases=before["phases"][1:])
    assert told(before, shorter) == [f"phase 1 ({before['phases'][0]['task']}) is gone"]
    assert told(shorter, before) == [f"phase 1 ({before['phases'][0]['task']}) is new"]


@pytest.mark.parametrize("value", [None, {}, []])
def test_what_is_nothing_on_both_sides_is_no_change(value):
    study = {"name": "a", "phases": [{"task": "a"}]}
    other = {"name": "a", "phases": [{"task": "a", "ema_decay": value}], "initial": value}
    assert study_changes(study, other) == [] == study_changes(other, study)


def test_secure_aggregation_that_came_or_went_is_one_change():
    secure = {"threshold": 2, "roster": {"north": "k1", "south": "k2"}}
    without, with_it = (
        {"secure_aggregation": None, "phases": []},
        {"secure_aggregation": secure, "phases": []},
    )
    assert told(without, with_it) == ["secure_aggregation is new"]
    assert told(with_it, without) == ["secure_aggregation is gone"]
    other = {"secure_aggregation": secure | {"threshold": 3}}
    assert told(with_it, other) == ["secure_aggregation.threshold: 2 -> 3"]


def test_phases_are_in_their_order_beyond_nine():
    before = {"phases": [{"task": f"t{number}", "rounds": 1} for number in range(12)]}
    after = {"phases": [phase | {"rounds": 2} for phase in before["phases"]]}
    keys = [each.key for each in study_changes(before, after)]
    assert keys == [f"phases.{number}.rounds" for number in range(1, 13)]
    numbers = [int(key.split(".")[1]) for key in keys]
    assert all(one < other for one, other in pairwise(numbers))


def test_what_is_left_out_is_counted_and_no_text_steers_a_terminal():
    assert first_of(["a", "b", "c"], most=2) == "a; b; and 1 more" and first_of(["a"], most=2) == "a"
    assert "\x1b" not in change_words("options.\x1b[2J", "\x1b[2J", "x")
