"""Mirrors a grid of runs into MLflow's SQLite store: a parent run for the grid, a child a cell.

Beside ``tracking.py`` the only door to MLflow. A cell that is written again, because a sweep was taken up,
finds its run by its digest and makes no second one.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.tracking import QUIET

GRID = "cardionets.grid"
CELL = "cardionets.cell"


class CellTracker:
    """One grid in one store; whatever fails in it, the grid goes on.

    Args:
        store: the SQLite file; made if absent.
        artefacts: folder for MLflow's artefacts.
        experiment: name of the experiment.
        grid: names the grid; the parent run is found again by it.
    """

    def __init__(self, *, store: Path, artefacts: Path, experiment: str, grid: str) -> None:
        self._store = store
        self._artefacts = artefacts
        self._experiment = experiment
        self._grid = grid
        self._client: Any = None
        self._experiment_id = ""
        self._parent = ""
        self.failure = ""
        """Why nothing more is written; empty while all is well."""

    def track(
        self, digest: str, *, name: str, params: Mapping[str, object], metrics: Mapping[str, float]
    ) -> None:
        """Write a cell once.

        Args:
            digest: of the cell.
            name: of the run.
            params: the keys that were set, and their values.
            metrics: by name; what is not finite is left out.
        """
        if self.failure:
            return
        try:
            # MLflow and SQLAlchemy warn each other of things that no researcher can change.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._write(digest, name, params, metrics)
        except Exception as error:  # tracking is a mirror
            self.failure = f"{type(error).__name__}: {error}"

    def close(self) -> None:
        """End the parent run."""
        if self._client is not None and not self.failure:
            self._client.set_terminated(self._parent)

    def _write(
        self, digest: str, name: str, params: Mapping[str, object], metrics: Mapping[str, float]
    ) -> None:
        from mlflow.entities import Metric, Param

        client = self._open()
        if self._find(CELL, digest):
            return
        tags = {"mlflow.parentRunId": self._parent, CELL: digest}
        run = client.create_run(self._experiment_id, run_name=name, tags=tags)
        now = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id,
            params=[Param(key, str(value)) for key, value in params.items()],
            metrics=[
                Metric(key.replace("@", "_at_"), value, now, 0)
                for key, value in metrics.items()
                if math.isfinite(value)
            ],
        )
        client.set_terminated(run.info.run_id)

    def _open(self) -> Any:
        if self._client is not None:
            return self._client
        os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
        from mlflow.tracking import MlflowClient

        # MLflow sets its own loggers up when it is imported, so they are quietened after that.
        for talker in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(talker).setLevel(logging.WARNING)
        client = MlflowClient(tracking_uri=f"sqlite:///{self._store.resolve()}")
        found = client.get_experiment_by_name(self._experiment)
        self._artefacts.mkdir(parents=True, exist_ok=True)
        self._experiment_id = (
            found.experiment_id
            if found
            else client.create_experiment(
                self._experiment, artifact_location=self._artefacts.resolve().as_uri()
            )
        )
        self._client = client
        self._parent = self._find(GRID, self._grid)
        if not self._parent:
            parent = client.create_run(self._experiment_id, run_name=self._grid[:12], tags={GRID: self._grid})
            self._parent = parent.info.run_id
        return client

    def _find(self, tag: str, value: str) -> str:
        within = f" and tags.mlflow.parentRunId = '{self._parent}'" if tag == CELL else ""
        found = self._client.search_runs(
            [self._experiment_id], filter_string=f"tags.`{tag}` = '{value}'{within}", max_results=1
        )
        return str(found[0].info.run_id) if found else ""
