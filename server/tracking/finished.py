"""The only door to MLflow: mirrors a result into an SQLite store, batched."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


def track_result(content: dict[str, Any], *, store: Path, artefacts: Path) -> dict[str, str]:
    """Write one parent run for the study and a child a phase.

    Args:
        content: of ``result.json``.
        store: the SQLite file; made if absent.
        artefacts: folder for MLflow's artefacts.

    Returns:
        ``status`` is ``written`` or ``failed``, with ``reason``; a lost store never stops a study.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    try:
        # MLflow and SQLAlchemy warn each other of things that no coordinator can change.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _write(content, store=store, artefacts=artefacts)
    except Exception as error:  # tracking is a mirror: whatever fails in it, the study stands
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return {"status": "written", "store": store.name}


def _write(content: dict[str, Any], *, store: Path, artefacts: Path) -> None:
    from mlflow.tracking import MlflowClient

    # MLflow sets its own loggers up when it is imported, so they are quietened after that.
    for talker in ("mlflow", "mlflow.store.db.utils", "alembic"):
        logging.getLogger(talker).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=f"sqlite:///{store.resolve()}")
    name = content["study"]["name"]
    experiment = client.get_experiment_by_name(name)
    artefacts.mkdir(parents=True, exist_ok=True)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(name, artifact_location=artefacts.resolve().as_uri())
    )
    parent = client.create_run(experiment_id, run_name=content["study_digest"][:12])
    _log_params(client, parent.info.run_id, content)
    for index, phase in enumerate(content["study"]["phases"]):
        child = client.create_run(
            experiment_id,
            run_name=phase["task"],
            tags={"mlflow.parentRunId": parent.info.run_id, "phase": str(index)},
        )
        _log_rounds(client, child.info.run_id, [r for r in content["rounds"] if r["phase"] == index])
        client.set_terminated(child.info.run_id)
    client.set_terminated(parent.info.run_id)


def _log_params(client: Any, run_id: str, content: dict[str, Any]) -> None:
    from mlflow.entities import Param

    params = {
        "study_digest": content["study_digest"],
        "model_digest": content["model_digest"],
        "seed": content["study"]["seed"],
        "preset": content["study"]["preset"],
        "strategy": content["study"]["aggregation"]["strategy"],
        "sites": len(content["sites"]),
    }
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])


def _log_rounds(client: Any, run_id: str, rounds: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = []
    for entry in rounds:
        values = {"seconds": entry["seconds"], "bytes_received": entry["bytes_received"]}
        values |= {f"pooled/{key}": value for key, value in entry.get("pooled", {}).items()}
        for row in entry["sites"]:
            if row.get("loss") is not None:
                values[f"{row['site']}/loss"] = row["loss"]
            values |= {f"{row['site']}/{key}": value for key, value in row.get("metrics", {}).items()}
        metrics += [
            Metric(key.replace("@", "_at_"), float(value), now, entry["round"])
            for key, value in values.items()
            if value is not None and math.isfinite(value)
        ]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
