"""The roster of a study: the admitted sites' keys, in the form that the study's document takes."""

from __future__ import annotations

import json

import pytest
import yaml

from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.trust.keys import fingerprint, read_public

PHASE = {"task": "ecg_mae", "rounds": 1, "local_steps": 1, "optimiser": {"lr": 1e-3}}


@pytest.fixture
def home(run, tmp_path):
    folder = tmp_path / "home"
    made = run("cardionets-server", "init", folder, "--consortium", "heart", "--address", "127.0.0.1:9092")
    assert made.returncode == 0, made.stderr
    names = ("north", "south", "east", "west")
    made = run("cardionets-server", "provision", folder, *[f"--site={name}" for name in names])
    assert made.returncode == 0, made.stderr
    return folder


def test_what_is_printed_is_a_part_of_a_study_with_the_registered_keys(run, home):
    printed = yaml.safe_load(run("cardionets-server", "roster", home).stdout)
    study = Study.model_validate({"name": "s", "phases": [PHASE], **printed})
    listed = json.loads(run("cardionets-server", "sites", home, "--format", "json").stdout)["sites"]
    secure = study.secure_aggregation
    assert secure is not None and secure.threshold == 3
    assert {
        name: fingerprint(read_public(line.encode(), where="x")) for name, line in secure.roster.items()
    } == {row["site"]: row["fingerprint"] for row in listed}


def test_some_sites_and_those_that_were_revoked(run, home):
    some = yaml.safe_load(run("cardionets-server", "roster", home, "--site", "east", "--site", "west").stdout)
    assert set(some["secure_aggregation"]["roster"]) == {"east", "west"}
    assert (
        run("cardionets-server", "revoke", home, "--site", "east", "--reason", "left", "--yes").returncode
        == 0
    )
    left = yaml.safe_load(run("cardionets-server", "roster", home).stdout)
    assert set(left["secure_aggregation"]["roster"]) == {"north", "south", "west"}
    refused = run("cardionets-server", "roster", home, "--site", "east")
    assert refused.returncode == 2 and "east is not admitted" in refused.stderr


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_a_threshold_of_half_or_less_or_more_than_all_is_no_study(run, home, threshold):
    printed = yaml.safe_load(run("cardionets-server", "roster", home).stdout)
    printed["secure_aggregation"]["threshold"] = threshold
    with pytest.raises((ConfigError, ValueError)):
        Study.model_validate({"name": "s", "phases": [PHASE], **printed})


def test_a_roster_that_its_sites_cannot_keep_to_is_refused_before_a_study_begins(run, home):
    printed = yaml.safe_load(run("cardionets-server", "roster", home).stdout)
    roster = printed["secure_aggregation"]["roster"]

    def plan(changed):
        secure = {**printed["secure_aggregation"], "roster": changed}
        content = {"name": "s", "phases": [PHASE], "sites": {"minimum": 3}, "secure_aggregation": secure}
        (home / "study.yaml").write_text(yaml.safe_dump(content))
        return run("cardionets-server", "plan", home)

    assert plan(roster).returncode == 0
    swapped = plan({**roster, "east": roster["west"], "west": roster["east"]})
    assert swapped.returncode == 3 and "another key of east" in swapped.stderr
    run("cardionets-server", "revoke", home, "--site", "east", "--reason", "left", "--yes")
    gone = plan(roster)
    assert gone.returncode == 3 and "east is on the roster, and is not admitted" in gone.stderr
    assert "cardionets-server roster" in gone.stderr
