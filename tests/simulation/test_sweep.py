"""A sweep: what is typed becomes checked scenarios, and rows come out sorted."""

from __future__ import annotations

import io
import json

import pytest

from cardionets_core.errors import ConfigError, UsageError
from simulation.cells.cell import Cell, CellResult
from simulation.cells.child import Failure
from simulation.pictures.sweep import picture_sweep
from simulation.screen import Screen
from simulation.sweep.job import metrics_of, primary_of
from simulation.sweep.keys import set_key
from simulation.sweep.plan import plan_cells, read_base
from simulation.sweep.run import SweepRequest, _metric, _rows, planned_cells, run_sweep, sweep_csv
from simulation.sweep.table import sweep_table
from simulation.sweep.values import parse_axes, parse_scalar, parse_values


@pytest.mark.parametrize(
    "text, values",
    [
        ("0.05,0.1", (0.05, 0.1)),
        ("1..4", (1, 2, 3, 4)),
        ("1..3,7", (1, 2, 3, 7)),
        ("0..1:5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("0..0.3:4", (0.0, 0.1, 0.2, 0.3)),
        ("log:1e-3..1:4", (1e-3, 1e-2, 1e-1, 1.0)),
        ("fedavg,krum", ("fedavg", "krum")),
        ("true,false,null", (True, False, None)),
        ("1,1.0", (1, 1.0)),
    ],
)
def test_values_are_lists_and_ranges(text, values):
    found = parse_values(text)
    assert found == values and [type(each) for each in found] == [type(each) for each in values]


@pytest.mark.parametrize(
    "text, told",
    [
        ("1,1", "twice"),
        ("5..1", "no range: it ends before it begins"),
        ("0.1..0.5", "how many values"),
        ("log:0..1:3", "positive ends"),
        ("log:1..10", "positive ends"),
        ("1,,2", "empty"),
        ("0..1:1", "give 2"),
        ("0..99999999", "more than"),
    ],
)
def test_ranges_that_cannot_be_are_told(text, told):
    with pytest.raises(ValueError, match=told):
        parse_values(text)


def test_scalars_are_read_as_a_document_would_have_them():
    assert [parse_scalar(text) for text in ("1e-3", "-2", ".5", "x1", "True")] == [1e-3, -2, 0.5, "x1", True]


def test_all_faults_of_the_options_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        parse_axes(["study.seed", "a=1,1", "b=1", "b=2"])
    for told in ("'study.seed' is not", "a: a value stands twice", "b is set twice"):
        assert told in str(caught.value)
    with pytest.raises(UsageError, match="nothing is set"):
        parse_axes([])


def test_keys_reach_phases_by_task_and_number_and_hospitals_by_site():
    document = {"study": {"phases": [{"task": "ecg_mae"}, {"task": "align"}]}, "hospitals": [{"site": "a"}]}
    set_key(document, "study.phases.align.options.temperature", 0.1)
    set_key(document, "study.phases.1.rounds", 3)
    set_key(document, "hospitals.a.patients", 60)
    set_key(document, "study.aggregation.strategy", "krum")
    assert document["study"]["phases"] == [
        {"task": "ecg_mae", "rounds": 3},
        {"task": "align", "options": {"temperature": 0.1}},
    ]
    assert document["hospitals"][0]["patients"] == 60
    assert document["study"]["aggregation"] == {"strategy": "krum"}
    set_key(document, "study.aggregation.strategy", None)
    assert document["study"]["aggregation"] == {}
    for key, told in (
        ("study.phases.probe.rounds", "no entry 'probe'"),
        ("study.phases.3.rounds", "no entry '3'"),
        ("hospitals.a.patients.x", "leads into 60"),
    ):
        with pytest.raises(ConfigError, match=told):
            set_key(document, key, 1)


def test_a_grid_is_every_combination_and_each_is_checked():
    base = read_base("rehearsal")
    axes = parse_axes(["study.seed=1..3", "study.phases.align.options.temperature=0.1,0.2"])
    planned = plan_cells(base, axes)
    assert [tuple(each.values.values()) for each in planned] == [
        (seed, temperature) for seed in (1, 2, 3) for temperature in (0.1, 0.2)
    ]
    assert {each.scenario.study.seed for each in planned} == {1, 2, 3}
    # The keys do not touch the hospitals, so all cells share them; the document itself is not changed.
    assert len({each.scenario.hospitals_digest for each in planned}) == 1
    assert read_base("rehearsal") == base
    assert planned[0].label == "seed=1 temperature=0.1"
    skewed = plan_cells(read_base("skewed"), parse_axes(["consortium.labels.dirichlet=0.5,5"]))
    assert len({each.scenario.hospitals_digest for each in skewed}) == 2


def test_a_drawn_part_of_the_grid_repeats():
    axes = parse_axes(["study.seed=1..20", "study.phases.align.options.temperature=0.1,0.2"])
    base = read_base("rehearsal")
    first, again, other = (
        [each.label for each in plan_cells(base, axes, sample=5, sample_seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other and len(set(first)) == 5


def test_every_wrong_cell_is_told_before_anything_runs():
    axes = parse_axes(
        ["study.phases.align.options.temprature=0.1", "study.phases.probe.rounds=0,1", "study.sead=1"]
    )
    with pytest.raises(ConfigError) as caught:
        plan_cells(read_base("rehearsal"), axes)
    text = str(caught.value)
    assert "2 cell(s)" in text and "did you mean 'seed'" in text and "rounds" in text
    with pytest.raises(ConfigError, match="temprature"):
        plan_cells(read_base("rehearsal"), axes[:1])
    with pytest.raises(UsageError, match="cells"):
        plan_cells(read_base("rehearsal"), parse_axes(["study.seed=1..9000", "seed=1..9000"]))


RESULT = {
    "rounds": [
        {"task": "ecg_mae", "primary": "loss", "pooled": {"loss": 2.0}},
        {"task": "ecg_mae", "primary": "loss", "pooled": {"loss": 1.0}, "test": {"pooled": {"loss": 1.5}}},
        {
            "task": "probe",
            "primary": "r2_mean",
            "pooled": {},
            "test": {"pooled": {"r2_mean": 0.2, "x": None}},
        },
    ]
}


def test_the_metrics_of_a_cell_are_those_of_the_phases_ends():
    assert metrics_of(RESULT) == {"ecg_mae.loss": 1.5, "probe.r2_mean": 0.2}
    assert primary_of(RESULT) == ["ecg_mae.loss", "probe.r2_mean"]


def outcomes():
    def one(value):
        metrics = {"ecg_mae.loss": 1.0 - value, "probe.r2_mean": value}
        content = {"metrics": metrics, "primary": list(metrics), "left_out": 0, "model_digest": "m"}
        return CellResult(content=content, seconds=3.0)

    return {"a": one(0.1), "b": one(0.3), "c": Failure(code="data", text="gone")}


class Row:
    def __init__(self, value):
        self.values = {"study.x.rate": value, "study.aggregation.strategy": "s"}


def swept(metric="", lowest=False):
    found = outcomes()
    cells = [Cell(name=name, digest=name, work=None) for name in found]
    metric = _metric(metric, found.values())
    by_name = {"a": Row(0.1), "b": Row(1.0), "c": Row(10.0)}
    return {
        "scenario": "s",
        "keys": ["study.x.rate", "study.aggregation.strategy"],
        "metric": metric,
        "rows": _rows(cells, by_name, found, metric=metric, lowest=lowest),
    }


def test_rows_are_sorted_and_failures_come_last(tmp_path):
    content = swept()
    assert content["metric"] == "probe.r2_mean"
    assert [row["cell"] for row in content["rows"]] == ["b", "a", "c"]
    assert [row["cell"] for row in swept(lowest=True)["rows"]] == ["a", "b", "c"]
    assert [row["cell"] for row in swept("ecg_mae", lowest=True)["rows"]] == ["b", "a", "c"]
    with pytest.raises(UsageError, match=r"probe\.r2_mean"):
        swept("nothing")
    lines = sweep_csv(content).splitlines()
    assert lines[0].startswith("study.x.rate,study.aggregation.strategy,probe.r2_mean,ecg_mae.loss,")
    assert (
        lines[1].startswith("1.0,s,0.3,0.7,0,3.0") and lines[3].startswith("10.0,s,,") and "data" in lines[3]
    )
    text = sweep_table(content, tmp_path)
    assert "FAILED data" in text and "gone" in text
    assert picture_sweep(content, tmp_path / "sweep.png") == "sweep.png"
    assert (tmp_path / "sweep.svg").stat().st_size > 1000
    assert picture_sweep({**content, "rows": content["rows"][2:]}, tmp_path / "none.png") is None


def asked(tmp_path, **changes):
    axes = parse_axes(["study.seed=1..2", "study.phases.align.options.temperature=0.1,0.2"])
    return SweepRequest(scenario="rehearsal", axes=axes, out=tmp_path / "out", track=False, **changes)


def test_a_metric_of_no_phase_is_refused_before_anything_is_made(tmp_path):
    assert len(planned_cells(asked(tmp_path, metric="probe.r2_mean"))) == 4
    assert len(planned_cells(asked(tmp_path, metric="align"))) == 4
    for metric in ("prob", "prob.r2_mean", "r2_mean"):
        with pytest.raises(UsageError, match="no cell has a phase") as caught:
            planned_cells(asked(tmp_path, metric=metric))
        assert "align" in caught.value.remedy
    with pytest.raises(UsageError, match="did you mean 'probe'"):
        planned_cells(asked(tmp_path, metric="prob"))
    assert not (tmp_path / "out").exists()


def test_a_metric_that_a_task_does_not_have_costs_nothing_that_was_run(tmp_path, monkeypatch):
    found = outcomes()
    cells = [Cell(name=name, digest=name, work=None) for name in found]
    by_name = {"a": Row(0.1), "b": Row(1.0), "c": Row(10.0)}
    monkeypatch.setattr("simulation.sweep.run._cells", lambda *given: (cells, by_name))
    monkeypatch.setattr("simulation.sweep.run.run_cells", lambda *given, **more: found)
    monkeypatch.setattr("simulation.pictures.sweep.picture_sweep", lambda *given: None)
    request = SweepRequest(
        scenario="rehearsal", axes=parse_axes(["study.x.rate=1", "study.aggregation.strategy=s"]),
        out=tmp_path, track=False, metric="probe.r2_men",
    )  # fmt: skip
    planned = planned_cells(asked(tmp_path))
    monkeypatch.setattr("simulation.sweep.run.planned_cells", lambda request: planned)
    with pytest.raises(UsageError, match=r"did you mean 'probe\.r2_mean'"):
        run_sweep(request, Screen(io.StringIO(), live=False))
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["metric"] == "probe.r2_mean" and [row["cell"] for row in content["rows"]] == [
        "b",
        "a",
        "c",
    ]
    assert (tmp_path / "sweep.csv").is_file()


def test_a_plan_is_told_in_every_format_with_its_count(tmp_path, run):
    line = ["cardionets-sim", "sweep", "rehearsal", "--set", "study.seed=1..3", "--out", tmp_path / "out"]
    text = run(*line, "--dry-run").stdout
    assert text.splitlines()[:3] == ["seed=1", "seed=2", "seed=3"]
    assert "3 cells of rehearsal, all valid; nothing was made or run" in text
    content = json.loads(run(*line, "--dry-run", "--format", "json").stdout)
    assert content["schema_version"] == 1 and content["dry_run"] is True
    assert [cell["values"] for cell in content["cells"]] == [{"study.seed": seed} for seed in (1, 2, 3)]
    assert run(*line, "--dry-run", "--format", "csv").stdout.split() == ["study.seed", "1", "2", "3"]
    assert not (tmp_path / "out").exists()


def test_wrong_keys_come_with_a_guess_or_with_what_there_is():
    base = read_base("rehearsal")
    for axis, told in (
        (
            "study.phases.alingn.rounds=1",
            "no entry 'alingn'; did you mean 'align'? (study.phases.alingn): use one",
        ),
        ("hospitals.biobnk.patients=60", "did you mean 'biobank'"),
        ("study.phases.align.options.temperatur=1", "the options are: "),
        ("study.sead=1", "study.sead: unknown key; did you mean 'seed'?"),
    ):
        with pytest.raises(ConfigError) as caught:
            plan_cells(base, parse_axes([axis]))
        assert told in caught.value.what and "keys and values" in caught.value.remedy
    with pytest.raises(ConfigError) as caught:
        plan_cells(read_base("attacked"), parse_axes(["events.1.factor=1,2"]))
    assert "events.1.factor: unknown key; offline has" in caught.value.what
    assert "and 1 more" in caught.value.what and "did you mean" not in caught.value.what


def test_the_help_shows_every_form_of_values_whole(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    text = run("cardionets-sim", "sweep", "--help").stdout
    for line in ("study.seed=1..5:", "=log:0.1..10:3:", "=1..10:4:", "temperature=0.1,null:"):
        assert line in text
    assert "…" not in text.partition("Arguments")[0]
    # Sentences are not broken where the source breaks them.
    assert "What comes out: a table sorted by the metric, a figure, and a run" in text
