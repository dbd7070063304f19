"""A cart that mixes up its leads: `check` and `prepare` say so, and say nothing of a sound one."""

from __future__ import annotations

import json

import pytest

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import record_table
from simulation.make import make_hospitals
from simulation.scenario import Scenario

PATIENTS = 24


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """The same hospital three times: sound, with shuffled names of leads, with swapped arm cables."""
    hospitals = [
        {"site": site, "layout": "mimic_iv_ecg", "patients": PATIENTS, "repeat_share": 0.2,
         "prevalence": {"cm": 0.1, "ph": 0.05}, "cart": {"leads": leads}}
        for site, leads in (("sound", "right"), ("mixed", "shuffled"), ("turned", "arms-swapped"))
    ]  # fmt: skip
    phase = {"task": "ecg_mae", "rounds": 1, "local_steps": 1, "optimiser": {"lr": 0.001}}
    study = {"name": "tiny", "phases": [phase]}
    scenario = Scenario.model_validate({"name": "tiny", "seed": 5, "hospitals": hospitals, "study": study})
    made = make_hospitals(scenario, tmp_path_factory.mktemp("faults") / "h", workers=1)
    return {path.parent.name: path for path in made}


def share_of(site, word):
    """Share of the recordings that could be read which are refused for, or flagged with, a word."""
    table = record_table(read_site(site)).to_pydict()
    told = [
        {reason, *(flags or ())}
        for reason, flags in zip(table["reason"], table["flags"], strict=True)
        if reason != "ecg-file-missing"
    ]
    assert len(told) >= PATIENTS - 1
    return sum(word in words for words in told) / len(told)


def test_prepare_counts_the_fault_of_the_site_and_warns(sites, client):
    done = {name: client("prepare", "--site", site) for name, site in sites.items()}
    assert {name: ended.code for name, ended in done.items()} == {"sound": 0, "mixed": 4, "turned": 0}
    shares = {
        name: (share_of(site, "ecg-lead-swap") + share_of(site, "lead-swap"), share_of(site, "arm-reversal"))
        for name, site in sites.items()
    }
    assert shares["mixed"] == (1.0, 0.0)
    assert shares["turned"][0] == 0 and shares["turned"][1] > 0.9
    assert shares["sound"][0] == 0 and shares["sound"][1] < 0.05
    assert "refusals: ecg-file-missing 1, ecg-lead-swap" in done["mixed"].out
    assert "most often for ecg-lead-swap" in done["mixed"].out
    warnings = [line for line in done["turned"].out.splitlines() if line.startswith("warning: ")]
    (told,) = [line for line in warnings if "are flagged arm-reversal" in line]
    assert "mend the export" in told and "arm-reversal" in done["turned"].out.split("flags: ")[1]
    assert "flagged arm-reversal" not in done["sound"].out and "lead-swap" not in done["sound"].out


def test_check_finds_the_fault_before_anything_is_prepared(sites, client):
    told = {name: client("check", "--site", site, "--sample", 16) for name, site in sites.items()}
    found = {
        name: json.loads(client("check", "--site", site, "--sample", 16, "--format", "json").out)
        for name, site in sites.items()
    }
    sample = {name: part["sample"] for name, part in found.items()}
    assert sample["mixed"]["refused"].get("ecg-lead-swap", 0) >= 15 and sample["mixed"]["accepted"] == 0
    assert any("ecg-lead-swap" in problem["what"] for problem in found["mixed"]["problems"])
    assert sample["turned"]["flags"]["arm-reversal"] > 0.9 * sample["turned"]["accepted"] > 13
    assert "arm-reversal: lead I is upside down as if" in told["turned"].out
    for word in ("arm-reversal", "lead-swap"):
        assert sample["sound"]["flags"].get(word, 0) <= 1 and word not in sample["sound"]["refused"]
    assert "the limb leads contradict Einthoven" in told["mixed"].out
    assert "contradict" not in told["sound"].out
