"""`compare`: what may be compared, and how a row reads."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from cardionets_core.errors import ConfigError, UsageError
from simulation.commands.grids import _jobs, _seeds, _strategies
from simulation.compare import Setup, summarise, unaligned
from simulation.comparison import COLUMNS, CompareRequest, _baseline, _federations, comparison_csv, table_rows
from simulation.comparison_table import comparison_table
from simulation.pictures.comparison import picture_comparison
from simulation.scenario import Comparison, load_scenario
from simulation.scoring import Score

M = 100


def request(tmp_path, **changes) -> CompareRequest:
    settings = changes.pop("settings", {})
    scenario = load_scenario("rehearsal").model_copy(
        update={"comparison": Comparison.model_validate({"strategies": settings})}
    )
    content = {"arms": ("federated", "pooled"), "strategies": {}, "seeds": (7,), **changes}
    return CompareRequest(scenario=scenario, out=tmp_path, **content)


def score(arm, mean, seed=0, patients=40):
    noise = np.random.default_rng(seed).normal(0.0, 0.01, M)
    words = {"task": "probe", "metric": "r2_mean", "population": "members", "patients": patients}
    return Score(arm=arm, mean=mean, replicates=mean + noise, **words)


def test_strategies_take_options_from_the_command_then_the_scenario_then_the_study(tmp_path):
    asked = request(
        tmp_path,
        strategies={"fedavg": {}, "fedprox": {"mu": 0.5}, "norm_bound": {}, "scaffold": {}},
        settings={
            "fedprox": {"options": {"mu": 0.1}},
            "norm_bound": {"options": {"bound": 2.0}},
            "scaffold": {"optimiser": {"name": "sgd", "lr": 0.05, "state": "reset"}},
        },
    )
    found = _federations(asked)
    assert list(found) == [f"federated/{name}" for name in asked.strategies]
    assert found["federated/fedprox"].aggregation.options == {"mu": 0.5}
    assert found["federated/norm_bound"].aggregation.options == {"bound": 2.0}
    scaffold = found["federated/scaffold"]
    assert {phase.optimiser.name for phase in scaffold.phases if phase.optimiser} == {"sgd"}
    # What is not laid over stays.
    assert scaffold.phases[0].optimiser.warmup == asked.scenario.study.phases[0].optimiser.warmup
    assert _federations(request(tmp_path)) == {"federated": asked.scenario.study}


def test_strategies_that_cannot_run_are_told_all_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        _federations(
            request(tmp_path, strategies={"scaffold": {}, "norm_bound": {}, "krumm": {}, "krum": {}})
        )
    text = str(caught.value)
    assert "4 of the strategies" in text and "comparison.strategies" in text
    for told in (
        "scaffold:",
        "norm_bound: the strategy norm_bound needs the option bound",
        "'krumm'",
        "needs 5",
    ):
        assert told in text


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no arm together"):
        _federations(request(tmp_path, arms=("federated", "together")))
    with pytest.raises(UsageError, match="nothing to set"):
        _baseline(request(tmp_path, arms=("alone",)), ["federated"])
    with pytest.raises(UsageError, match="none of the arms"):
        _baseline(request(tmp_path, baseline="krum"), ["federated/fedavg"])
    assert (
        _baseline(request(tmp_path, baseline="krum"), ["federated/a", "federated/krum"]) == "federated/krum"
    )
    assert _baseline(request(tmp_path, baseline="pooled"), ["federated"]) == "pooled"


def test_the_options_are_read_and_what_is_wrong_is_told():
    assert _strategies("fedavg, fedadam:rate=0.01:tau=1e-3") == {
        "fedavg": {},
        "fedadam": {"rate": 0.01, "tau": 1e-3},
    }
    assert _seeds("7,8") == (7, 8) and _seeds("1..3") == (1, 2, 3) and _seeds("") == ()
    assert _jobs("auto") is None and _jobs("3") == 3
    for wrong in ("fedprox:mu", "fedavg,fedavg", "fedprox:=1"):
        with pytest.raises(UsageError, match="no strategy"):
            _strategies(wrong)
    for wrong in ("a", "-1", "1,1", "0.5"):
        with pytest.raises(UsageError):
            _seeds(wrong)
    for wrong in ("0", "many"):
        with pytest.raises(UsageError):
            _jobs(wrong)


def test_the_interval_over_seeds_is_students():
    rows = summarise([score("a", 0.1), score("a", 0.2), score("a", 0.4)], arms=["a"], baseline="a")[
        "comparison"
    ]
    half = stats.t.ppf(0.975, 2) * np.std([0.1, 0.2, 0.4], ddof=1) / math.sqrt(3)
    assert rows[0]["seeds_low"] == pytest.approx(7 / 30 - half)
    assert rows[0]["seeds_high"] == pytest.approx(7 / 30 + half)
    one = summarise([score("a", 0.1)], arms=["a"], baseline="a")["comparison"][0]
    assert (one["seeds_low"], one["seeds_high"]) == (None, None)


def content():
    scores = [score("federated/fedavg", 0.3), score("federated/fedavg", 0.5), score("pooled", 0.6)]
    scores += [score("pooled", 0.6), score("alone:x", 0.1)]
    found = summarise(
        scores,
        arms=["federated/fedavg", "pooled", "alone:x", "alone:y"],
        baseline="federated/fedavg",
        failed={"alone:x": "failed: killed", "alone:y": "failed: bug"},
    )
    return {
        "scenario": "s",
        "seeds": [1, 2],
        "baseline": "federated/fedavg",
        "left_out": [
            {"arm": "federated/fedavg", "seed": 1, "row": ["x", "late", "align", "1-2", "left out: late"]}
        ],
        "failed_cells": {"alone-x-seed2": {"code": "killed", "text": "its process was ended"}},
        **found,
    }


def test_a_row_tells_what_an_arm_adds_to_the_baseline(tmp_path):
    rows = {row["arm"]: row for row in table_rows(content())}
    assert rows["pooled"]["difference"] == pytest.approx(0.2)
    assert rows["pooled"]["difference_low"] <= 0.2 <= rows["pooled"]["difference_high"]
    # By hand: differences 0.3 and 0.1 over two seeds.
    half = stats.t.ppf(0.975, 1) * np.std([0.3, 0.1], ddof=1) / math.sqrt(2)
    assert rows["pooled"]["difference_seeds_high"] == pytest.approx(0.2 + half)
    # One seed of two has failed: its mean stands, and no difference of different seeds.
    assert rows["alone:x"]["mean"] == pytest.approx(0.1) and rows["alone:x"]["difference"] is None
    assert rows["alone:y"]["mean"] is None and rows["alone:y"]["reason"] == "failed: bug"
    read = list(csv.DictReader(io.StringIO(comparison_csv(content()))))
    assert tuple(read[0]) == COLUMNS and float(read[1]["difference"]) == pytest.approx(0.2)
    text = comparison_table(content(), tmp_path)
    assert "baseline federated/fedavg" in text and "FAILED alone-x-seed2 [killed]" in text
    assert "left out: late" in text


def test_the_figure_is_a_png_and_an_svg_that_repeats(tmp_path):
    assert picture_comparison(content(), tmp_path / "a.png") == "a.png"
    assert picture_comparison(content(), tmp_path / "b.png") == "b.png"
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    nothing = {**content(), "comparison": [], "differences": []}
    assert picture_comparison(nothing, tmp_path / "c.png") is None


def test_the_arms_have_names_in_the_order_of_the_table(tmp_path):
    study = load_scenario("rehearsal").study
    setup = Setup(
        study=study,
        cohorts={"b": None, "a": None, "x": None},
        site_paths={},
        external=frozenset({"x"}),
        hospitals="h",
        folder=tmp_path,
        seeds=(1,),
        strategies={"federated/krum": study},
    )
    assert setup.names == ["federated/krum", "unaligned/krum", "pooled", "alone:a", "alone:b"]
    assert unaligned("federated") == "unaligned"


def test_a_cells_digest_follows_its_study_and_its_hospitals(tmp_path):
    from simulation.arms import ArmJob

    study = load_scenario("rehearsal").study
    other = study.model_copy(update={"seed": 99})
    common = {"arm": "pooled", "names": {"pooled": "pooled"}, "base": study, "site_paths": ()}
    digests = [
        ArmJob(study=study, **common).digest("h"),
        ArmJob(study=other, **common).digest("h"),
        ArmJob(study=study, **common).digest("i"),
        ArmJob(study=study, pooled="batch", **common).digest("h"),
    ]
    assert len(set(digests)) == 4 and ArmJob(study=study, **common).digest("h") == digests[0]
