"""`compare`: what may be compared, and how a row reads."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cardionets_core.errors import CheckpointError, ConfigError, FolderMissingError, UsageError
from simulation.asked import check_initial, ready_folder
from simulation.commands.typed import typed_jobs, typed_seeds, typed_strategies
from simulation.compare import Setup, cell_word, summarise, unaligned
from simulation.comparison import (
    COLUMNS,
    OURS,
    CompareRequest,
    _baseline,
    _federations,
    comparison_csv,
    table_rows,
)
from simulation.comparison_table import comparison_table
from simulation.pictures.comparison import picture_comparison
from simulation.run import _prepare_stale
from simulation.scenario import Comparison, load_scenario
from simulation.scoring import Score
from simulation.screen import Screen

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
    assert typed_strategies("fedavg, fedadam:rate=0.01:tau=1e-3") == {
        "fedavg": {},
        "fedadam:rate=0.01:tau=1e-3": {"rate": 0.01, "tau": 1e-3},
    }
    assert typed_seeds("7,8") == (7, 8) and typed_seeds("1..3") == (1, 2, 3) and typed_seeds("") == ()
    assert typed_jobs("auto") is None and typed_jobs("3") == 3
    for wrong in ("fedprox:mu", "fedavg,fedavg", "fedprox:=1", "a:x=1,a:x=1.0", "a:x=1:x=2", ":x=1"):
        with pytest.raises(UsageError, match=r"no strategy|twice"):
            typed_strategies(wrong)
    for wrong in ("a", "-1", "1,1", "0.5"):
        with pytest.raises(UsageError):
            typed_seeds(wrong)
    for wrong in ("0", "many"):
        with pytest.raises(UsageError):
            typed_jobs(wrong)


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


def test_settings_of_one_strategy_are_arms_of_their_own(tmp_path):
    typed = typed_strategies("fedprox:mu=0.1,fedprox:mu=1,fedavg")
    assert typed == {"fedprox:mu=0.1": {"mu": 0.1}, "fedprox:mu=1": {"mu": 1}, "fedavg": {}}
    asked = request(tmp_path, strategies=typed, settings={"fedprox": {"options": {"mu": 5.0}}})
    found = _federations(asked)
    assert list(found) == ["federated/fedprox:mu=0.1", "federated/fedprox:mu=1", "federated/fedavg"]
    assert found["federated/fedprox:mu=1"].aggregation.options == {"mu": 1}
    assert _baseline(request(tmp_path, baseline="fedprox:mu=1"), list(found)) == "federated/fedprox:mu=1"
    # The name alone says which, where there is one of it.
    assert _baseline(request(tmp_path, baseline="fedprox"), list(found)[1:]) == "federated/fedprox:mu=1"
    with pytest.raises(UsageError, match="did you mean 'fedavg'"):
        _baseline(request(tmp_path, baseline="fedvag"), list(found))
    # Folders of cells: readable, and never the same for two names.
    assert cell_word("federated/fedprox:mu=0.1") == "federated-fedprox-mu=0.1"
    assert cell_word("federated") == "federated"
    words = {cell_word(f"federated/fedbn:local={pattern}") for pattern in ("a*", "a?", "a.")}
    assert len(words) == 3 and not any(set(word) & set("/:*?") for word in words)


def test_a_strategy_that_is_not_there_is_told_in_one_line_with_a_guess(tmp_path):
    with pytest.raises(ConfigError) as caught:
        _federations(request(tmp_path, strategies={"fedvag": {}, "fedprox": {"m": 1}}))
    _, first, second = caught.value.what.splitlines()
    assert "there is no strategy 'fedvag'; did you mean 'fedavg'?" in first and ": use one of:" in first
    assert "has no option m" in second and "it takes: mu" in second
    assert str(caught.value).count("to do:") == 1


def test_slips_are_told_before_anything_large_is_loaded():
    code = "import sys\nfrom simulation.cli import main\ntry: main()\nexcept SystemExit as e: print(e.code)\n"
    code += "print('torch' in sys.modules)"
    for options in (["--arms", "poled"], ["--strategies", "a,a"], ["--seeds", "x"], ["--jobs", "0"]):
        line = [sys.executable, "-c", code, "compare", "rehearsal", "--out", "nowhere", *options]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert done.stdout.split() == ["2", "False"], done.stderr
    assert "did you mean 'pooled'" in subprocess.run(
        [sys.executable, "-c", code, "compare", "rehearsal", "--out", "nowhere", "--arms", "poled"],
        capture_output=True, text=True, timeout=120,
    ).stderr  # fmt: skip


@pytest.mark.parametrize("command", [
    ("run", "rehearsal"), ("compare", "rehearsal"), ("sweep", "rehearsal", "--set", "study.seed=1..2"),
    ("make", "rehearsal"),
])  # fmt: skip
def test_a_file_is_no_folder_to_write_to(command, run, tmp_path):
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file" / "inside"):
        done = run("cardionets-sim", *command, "--out", out)
        assert done.returncode == 2 and "is a file" in done.stderr and "give a folder" in done.stderr
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "command", [("compare", "rehearsal"), ("sweep", "rehearsal", "--set", "study.seed=1..2")]
)
def test_a_folder_of_other_things_is_left_alone(command, run, tmp_path):
    (tmp_path / "thesis.tex").write_text("kept")
    done = run("cardionets-sim", *command, "--out", tmp_path)
    assert done.returncode == 2 and "other things, such as thesis.tex" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_of_a_call_that_was_broken_off_is_taken_up(tmp_path):
    (tmp_path / "hospitals").mkdir()
    (tmp_path / "notes").touch()
    ready_folder(tmp_path, ours=OURS)
    (tmp_path / "empty").mkdir()
    ready_folder(tmp_path / "empty", ours=OURS)


def test_a_folder_that_cannot_be_made_is_told():
    with pytest.raises(UsageError, match="cannot be made"):
        ready_folder(Path("/proc/nowhere/out"))


@pytest.mark.parametrize("command", [
    ("run", "rehearsal"), ("compare", "rehearsal"), ("sweep", "rehearsal", "--set", "study.seed=1..2"),
])  # fmt: skip
def test_given_weights_that_nobody_asked_for_are_refused(command, run, tmp_path):
    done = run("cardionets-sim", *command, "--out", tmp_path / "out", "--initial", tmp_path)
    assert done.returncode == 2 and "names no initial weights" in done.stderr
    assert not (tmp_path / "out").exists()


def test_given_weights_are_looked_for_before_anything_is_made(tmp_path):
    study = load_scenario("rehearsal").study.model_copy(update={"initial": {"ecg_encoder": "0" * 64}})
    with pytest.raises(FolderMissingError, match="there is no folder"):
        check_initial([study], tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no folder was named"):
        check_initial([study], None)
    with pytest.raises(CheckpointError, match="ecg_encoder cannot be read"):
        check_initial([study], tmp_path)
    check_initial([load_scenario("rehearsal").study], None)


def test_a_folder_of_recordings_that_is_wanted_is_told_first(run, tmp_path):
    done = run("cardionets-sim", "run", "real_ecg", "--out", tmp_path / "out")
    assert done.returncode == 2 and "--data" in done.stderr and "hospitals in" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cores", [1, 2])
def test_indexing_is_told_from_its_start(cores, tmp_path, monkeypatch):
    told = io.StringIO()
    paths = [tmp_path / name / "site.yaml" for name in ("a", "b")]
    failed = _prepare_stale(paths, Screen(told, live=False), cores=cores)
    assert set(failed) == set(paths)
    lines = told.getvalue().splitlines()
    assert lines[0] == "indexing 2 of the hospitals" and lines[-1].endswith("indexed · 2 of 2")
