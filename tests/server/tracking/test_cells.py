"""A grid in MLflow's store: a parent, a run a cell, and none twice."""

from __future__ import annotations

import warnings

import pytest

from server.tracking.cells import CellTracker

pytest.importorskip("mlflow")


def write(folder, digests, grid="g"):
    tracker = CellTracker(
        store=folder / "mlflow.db", artefacts=folder / "mlflow", experiment="sweep-x", grid=grid
    )
    for digest, value in digests.items():
        tracker.track(
            digest,
            name=f"seed={digest}",
            params={"study.seed": digest, "study.phases.align.options.temperature": 0.1},
            metrics={"align.recall@5": value, "probe.r2_mean": float("nan")},
        )
    tracker.close()
    return tracker


def test_a_cell_is_one_run_however_often_it_is_written(tmp_path):
    assert write(tmp_path, {"a": 0.5}).failure == ""
    assert write(tmp_path, {"a": 0.5, "b": 0.7}).failure == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("sweep-x").experiment_id
        runs = client.search_runs([experiment])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    cells = {run.data.params["study.seed"]: run for run in runs if run not in parents}
    assert len(parents) == 1 and set(cells) == {"a", "b"} and len(runs) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {parents[0].info.run_id}
    assert cells["b"].data.metrics == {"align.recall_at_5": 0.7}
    assert cells["a"].data.params["study.phases.align.options.temperature"] == "0.1"
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_store_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    assert write(tmp_path, {"a": 0.5}).failure == "the SQLite file cannot be opened"
