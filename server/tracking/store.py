"""A tracking store, as the outbox needs it: runs found or made, points once, parameters, tags, files.

The door to MLflow. Every call fails within seconds where the store does not answer, unless the coordinator's
environment says otherwise. Nothing is sent in the background.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.0",
}
"""MLflow's own patience is minutes a call; what fails is sent again later."""
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")
METRICS_A_CALL = 1000
PARAMETERS_A_CALL = 100
LONGEST_TAG = 8000
KEY = "cardionets.key"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Else MLflow's pages begin with those of language models."""
LARGE_FILE_BYTES = 200_000_000


@contextlib.contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Inside the block MLflow prints nothing, phones nobody and waits for nobody long."""
    os.environ.update({key: value for key, value in (QUIET | IMPATIENT).items() if key not in os.environ})
    # MLflow and SQLAlchemy warn each other of things that no coordinator can change, and MLflow prints.
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401 - it sets its own loggers up here, so they are quietened after it

        for talker in ("mlflow", "mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
            logging.getLogger(talker).setLevel(logging.ERROR)
        yield


def _ask_once(address: str) -> None:
    """Connect to a database; MLflow would ask one that cannot be opened again and again, for 100 s."""
    if not address.startswith(DATABASES):
        return
    import sqlalchemy

    url = sqlalchemy.make_url(address)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
    engine = sqlalchemy.create_engine(url)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


class Store:
    """One experiment of one store.

    Args:
        address: of the tracking server or store.
        registry: address of the model registry; empty where it is the same.
        experiment: its name; made if absent.
        artefacts: where those of a new experiment go; empty where the server says that.
    """

    def __init__(self, *, address: str, registry: str = "", experiment: str, artefacts: str = "") -> None:
        from mlflow.tracking import MlflowClient

        self.address, self.registry = address, registry or address
        _ask_once(address)
        self.client = MlflowClient(tracking_uri=address, registry_uri=self.registry)
        self.experiment = self._experiment(experiment, artefacts)

    def _experiment(self, name: str, artefacts: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "active":
            return str(found.experiment_id)
        # Of a deleted one of that name MLflow says itself that it must be restored or gone.
        return str(self.client.create_experiment(name, artifact_location=artefacts or None, tags=dict(KIND)))

    def run(self, key: str, *, name: str, tags: Mapping[str, str], parent: str = "") -> str:
        """The id of the run of a key: one that an interrupted call has made, or a new one."""
        found = self.client.search_runs(
            [self.experiment], filter_string=f"tags.`{KEY}` = '{key}'", max_results=1
        )
        if found:
            return str(found[0].info.run_id)
        tags = {**tags, KEY: key, **({PARENT: parent} if parent else {})}
        return str(self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id)

    def points(self, run: str, points: Mapping[str, float], *, step: int, at_ms: int, in_doubt: bool) -> None:
        """Log points of one step.

        Args:
            run: id of the run.
            points: name to value.
            step: of all of them.
            at_ms: their time, Unix milliseconds; the same for every try, so that one that arrives late is
                no further point in a store that compares them.
            in_doubt: an earlier call may have logged some: only those that are absent are sent.
        """
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, at_ms, step)
            for name, value in points.items()
            if not in_doubt or all(each.step != step for each in self.client.get_metric_history(run, name))
        ]
        for start in range(0, len(metrics), METRICS_A_CALL):
            self.client.log_batch(run, metrics=metrics[start : start + METRICS_A_CALL])

    def parameters(self, run: str, values: Mapping[str, str]) -> None:
        """Log parameters; those that are there already must have the same values."""
        from mlflow.entities import Param

        found = [Param(name, value) for name, value in values.items()]
        for start in range(0, len(found), PARAMETERS_A_CALL):
            self.client.log_batch(run, params=found[start : start + PARAMETERS_A_CALL])

    def tags(self, run: str, values: Mapping[str, str]) -> None:
        """Set tags; longer texts than MLflow takes are cut."""
        from mlflow.entities import RunTag

        self.client.log_batch(run, tags=[RunTag(name, text[:LONGEST_TAG]) for name, text in values.items()])

    def file(self, run: str, path: Path, *, under: str = "") -> None:
        """Send one artefact, in the place of one of the same name."""
        self.client.log_artifact(run, str(path), artifact_path=under or None)

    def end(self, run: str) -> None:
        """The run is over."""
        self.client.set_terminated(run, status="FINISHED")

    def go_on(self, run: str) -> None:
        """The run is not over, whatever was said before."""
        self.client.update_run(run, status="RUNNING")
