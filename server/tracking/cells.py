"""Mirrors a grid of runs: a parent run for the grid, a run inside it for each cell.

Comes in: what a cell was set to and what came of it. Goes out: one run a cell, found again by the digest of
the cell when a sweep is taken up, so that none is made twice. Sends no file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from server.tracking.points import metric_name
from server.tracking.reasons import reason_of
from server.tracking.store import Store, quiet_mlflow


class CellTracker:
    """One grid in one store; whatever fails in it, the grid goes on.

    Args:
        store: the SQLite file; made if absent.
        artefacts: folder for MLflow's artefacts; made if absent.
        experiment: its name.
        grid: names the grid; its run is found again by it.
    """

    def __init__(self, *, store: Path, artefacts: Path, experiment: str, grid: str) -> None:
        self._file = store
        self._artefacts = artefacts
        self._experiment = experiment
        self._grid = grid
        self._store: Store | None = None
        self._parent = ""
        self.failure = ""
        """Why nothing more is written; empty while all is well."""

    def track(
        self, digest: str, *, name: str, params: Mapping[str, object], metrics: Mapping[str, float]
    ) -> None:
        """Write a cell; one that is there already stays as it is.

        Args:
            digest: of the cell.
            name: of its run.
            params: the keys that were set, and their values.
            metrics: by name; what is not finite is left out.
        """
        if self.failure:
            return
        try:
            with quiet_mlflow():
                store = self._open()
                run = store.run(f"{self._grid}/{digest}", name=name, tags={}, parent=self._parent)
                store.parameters(run, {key: str(value) for key, value in params.items()})
                points = {metric_name(key): value for key, value in metrics.items() if math.isfinite(value)}
                store.points(run, points, step=0, at_ms=int(time.time() * 1000), in_doubt=True)
                store.end(run)
        except Exception as error:  # tracking is a mirror
            self.failure = reason_of(error)

    def close(self) -> None:
        """End the grid's run."""
        if self._store is not None and not self.failure:
            self._store.end(self._parent)

    def _open(self) -> Store:
        if self._store is None:
            self._artefacts.mkdir(parents=True, exist_ok=True)
            store = Store(
                address=f"sqlite:///{self._file.resolve()}",
                experiment=self._experiment,
                artefacts=self._artefacts.resolve().as_uri(),
            )
            self._parent = store.run(self._grid, name=f"grid {self._grid[:12]}", tags={})
            self._store = store
        return self._store
