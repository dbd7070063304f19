"""Runs a study on Flower's simulation engine, in this process, with one virtual SuperNode a hospital."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study
from server.progress import Progress
from simulation.events.schedule import Attack, Fault, LabelFlip

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}
OBJECT_STORE_BYTES = 256 * 1024 * 1024


def hospital_of_partition(paths: Sequence[Path], context: Any) -> Path:
    """The site document of a virtual node: nodes are numbered, hospitals are in a list."""
    return paths[int(context.node_config["partition-id"])]


def run_on_flower(
    study: Study,
    site_paths: Sequence[Path],
    *,
    folder: Path,
    progress: Progress,
    track: bool,
    cores: int,
    initial: Path | None = None,
    events: Sequence[Fault | Attack | LabelFlip] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Run the study with the real ServerApp code and the real ClientApp on Flower's engine (Ray).

    Args:
        study: what to run.
        site_paths: one ``site.yaml`` a virtual node.
        folder: the run folder.
        progress: called for every event.
        track: whether the server writes MLflow's store.
        cores: how many sites may compute at a time, one core each.
        initial: folder of the weights that the study names as ``initial``.
        events: faults and attackers that happen on the way.
        seed: of the scenario, for attackers' noise.

    Returns:
        The content of ``result.json``; with its schedule as ``events``, where there is one.

    Raises:
        CardioNetsError: what stopped the study.
    """
    os.environ.update(QUIET)
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from client.app import make_app

    logging.getLogger("flwr").setLevel(logging.ERROR)
    server_app = ServerApp()
    results: list[dict[str, Any]] = []

    @server_app.main()
    def main(grid: Grid, context: Any) -> None:
        results.append(
            _run(
                grid,
                study,
                folder=folder,
                progress=progress,
                track=track,
                initial=initial,
                events=events,
                seed=seed,
            )
        )

    _start_ray(cores)
    _beside(
        functools.partial(
            run_simulation,
            server_app=server_app,
            client_app=make_app(functools.partial(hospital_of_partition, tuple(site_paths))),
            num_supernodes=len(site_paths),
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    )
    return results[0]


def _beside(work: Callable[[], object]) -> None:
    """Do the work in a thread, so that Ctrl-C is raised here and not in Flower.

    Flower would shut Ray down while its threads still use it, and Ray then ends the process with a code of
    its own.
    """
    failed: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as error:  # it is raised again below
            failed.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _start_ray(cores: int) -> None:
    """Start Ray, which Flower then finds started, and take SIGTERM back from it.

    Ray answers SIGTERM with its stack and an abort; whoever asks a run to end wants neither.
    """
    import ray

    # As Flower does: actors do not see what this process has added to its path.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*sys.path, os.environ.get("PYTHONPATH"))))
    ends = signal.getsignal(signal.SIGTERM)
    ray.init(
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ends)


def run_locally(
    study: Study,
    site_paths: Sequence[Path],
    *,
    folder: Path,
    progress: Progress,
    track: bool,
    initial: Path | None = None,
    events: Sequence[Fault | Attack | LabelFlip] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Run the same study on the in-process grid: no Ray, one site after the other.

    Takes the arguments of ``run_on_flower`` and gives the same model.
    """
    os.environ.update(QUIET)
    from client.app import make_app
    from simulation.local_grid import LocalGrid

    locate = functools.partial(hospital_of_partition, tuple(site_paths))
    grid = LocalGrid([make_app(locate) for _ in site_paths])
    return _run(
        grid,
        study,
        folder=folder,
        progress=progress,
        track=track,
        initial=initial,
        events=events,
        seed=seed,
    )


def _run(
    grid: Any,
    study: Study,
    *,
    folder: Path,
    progress: Progress,
    track: bool,
    initial: Path | None,
    events: Sequence[Fault | Attack | LabelFlip],
    seed: int,
) -> dict[str, Any]:
    from server.app import run_study

    if not events:
        return run_study(grid, study, folder=folder, progress=progress, track=track, initial=initial)
    from simulation.events.grid import EventfulGrid

    eventful = EventfulGrid(grid, events, study=study, seed=seed)
    result = run_study(eventful, study, folder=folder, progress=progress, track=track, initial=initial)
    schedule = [event.model_dump(mode="json", exclude_none=True) for event in events]
    return {**result, "events": schedule}
