"""The MLflow mirror holds the result's numbers, and the plan the modules' sizes."""

import warnings

import pytest

from cardionets_core.errors import ConfigError
from server.study_files import find_study
from server.tracking import track_result


def result():
    entry = {"phase": 0, "task": "ecg_mae", "round": 1, "seconds": 1.5, "bytes_received": 10}
    entry["pooled"] = {"correlation": 0.25, "recall@5": 0.5}
    entry["sites"] = [{"site": "a", "loss": 0.75, "metrics": {"correlation": 0.125}}]
    return {
        "study": {
            "name": "s",
            "seed": 1,
            "preset": "nano",
            "aggregation": {"strategy": "fedavg"},
            "phases": [{"task": "ecg_mae"}],
        },
        "study_digest": "ab" * 32,
        "model_digest": "cd" * 32,
        "sites": [{"site": "a"}],
        "rounds": [entry],
    }


@pytest.mark.filterwarnings("ignore")
def test_the_store_holds_what_the_result_says(tmp_path):
    found = track_result(result(), store=tmp_path / "mlflow.db", artefacts=tmp_path / "artefacts")
    assert found == {"status": "written", "store": "mlflow.db"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("s")
        runs = client.search_runs([experiment.experiment_id])
    child = next(run for run in runs if "mlflow.parentRunId" in run.data.tags)
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["model_digest"] == "cd" * 32
    assert child.data.metrics["pooled/correlation"] == 0.25
    assert child.data.metrics["pooled/recall_at_5"] == 0.5
    assert child.data.metrics["a/loss"] == 0.75


@pytest.mark.filterwarnings("ignore")
def test_a_store_that_cannot_be_written_stops_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = track_result(result(), store=blocked / "mlflow.db", artefacts=tmp_path / "artefacts")
    assert found["status"] == "failed" and found["reason"]


def test_an_unknown_study_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match="demo"):
        find_study("nothing-like-it")
