"""A scenario from nothing to a result: make the hospitals, index them, run the study, compare, plot."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cardionets_core.config.site import read_site
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import CardioNetsError, DataError, UsageError
from server.app import RESULT, write_json
from server.report import finite
from simulation.compare import compare
from simulation.flower import run_locally, run_on_flower
from simulation.make import make_hospitals
from simulation.scenario import Scenario
from simulation.screen import Screen

Engine = Literal["flower", "local"]
RUN_PARTS = (
    "checkpoints",
    "rounds",
    "work",
    "model",
    "plots",
    "compare",
    "mlflow",
    "mlflow.db",
    "study.json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the researcher typed.

    Attributes:
        scenario: the scenario.
        out: run folder.
        data: folder of real recordings, for scenarios that use them.
        engine: ``flower`` (Flower's simulation engine) or ``local`` (in this process).
        replace: do away with an earlier run in the folder; its hospitals are kept if they are the same.
        seed: replaces the study's seed, if given.
        cores: how many processes compute at a time.
        compare: whether to run the other arms.
        track: whether to write MLflow's store.
    """

    scenario: Scenario
    out: Path
    data: Path | None = None
    engine: Engine = "flower"
    replace: bool = False
    seed: int | None = None
    cores: int = 2
    compare: bool = True
    track: bool = True


def run_scenario(request: RunRequest, screen: Screen) -> dict[str, Any]:
    """Run a scenario.

    Returns:
        The content of ``result.json``.

    Raises:
        UsageError: the folder holds an earlier run and ``replace`` was not asked for.
        CardioNetsError: no site, or too few, could serve; what could be done lies in the folder.
    """
    started = time.monotonic()
    _clear(request)
    study = request.scenario.study
    if request.seed is not None:
        study = study.model_copy(update={"seed": request.seed})
    paths = make_hospitals(
        request.scenario,
        request.out / "hospitals",
        data=request.data,
        workers=request.cores,
        replace=request.replace,
        progress=lambda site, done, total: screen.stage(f"{site}: patients drawn", done, total),
    )
    cohorts, broken = index_hospitals(paths, screen)
    seconds = {"hospitals_and_index": time.monotonic() - started}
    track = request.track
    if request.engine == "flower":
        result = run_on_flower(
            study, paths, folder=request.out, progress=screen.event, track=track, cores=request.cores
        )
    else:
        result = run_locally(study, paths, folder=request.out, progress=screen.event, track=track)
    seconds["study"] = time.monotonic() - started - sum(seconds.values())
    result["scenario"] = request.scenario.name
    result["broken_sites"] = broken
    comparison = request.scenario.comparison
    if request.compare and comparison.enabled:
        compared = compare(
            study,
            cohorts=cohorts,
            site_paths={path.parent.name: path for path in paths},
            folder=request.out,
            seeds=comparison.seeds,
            cores=request.cores,
            screen=screen,
        )
        result.update(compared)
    seconds["comparison"] = time.monotonic() - started - sum(seconds.values())
    from simulation.plots import plot_run

    result["plots"] = plot_run(result, cohorts, folder=request.out / "plots", preset=study.preset)
    seconds["plots"] = time.monotonic() - started - sum(seconds.values())
    result["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    content = finite(result)
    write_json(request.out / RESULT, content)
    return content


def index_hospitals(paths: list[Path], screen: Screen) -> tuple[dict[str, Cohort], dict[str, str]]:
    """Prepare every hospital's cache.

    Returns:
        The cohorts by site, and the sites that could not be indexed with their code; the others go on.

    Raises:
        DataError: not one hospital could be indexed.
    """
    cohorts: dict[str, Cohort] = {}
    broken: dict[str, str] = {}
    for path in paths:
        try:
            config = read_site(path)
            cohorts[config.site] = prepare(config, progress=_of_site(config.site, screen))
        except CardioNetsError as error:
            broken[path.parent.name] = error.code
            screen.warn(f"{path.parent.name} cannot take part [{error.code}]: {error}")
    if not cohorts:
        raise DataError(
            "not one hospital could be indexed", where="indexing", remedy="mend the faults printed above"
        )
    return cohorts, broken


def _of_site(site: str, screen: Screen) -> Callable[[str, int, int], None]:
    """Progress of one site's index: each line names the site."""
    return lambda what, done, total: screen.stage(f"{site}: {what}", done, total)


def _clear(request: RunRequest) -> None:
    """An earlier run is never mixed with a new one."""
    earlier = [name for name in (*RUN_PARTS, RESULT) if (request.out / name).exists()]
    if earlier and not request.replace:
        raise UsageError(
            f"{request.out} holds an earlier run",
            where="--out",
            remedy="choose another folder, or pass --replace",
        )
    for name in earlier:
        path = request.out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
