"""A scenario from nothing to a result: make the hospitals, index them, run the study, compare, plot."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cardionets_core.config.site import read_site
from cardionets_core.config.tracking import Tracking
from cardionets_core.data.cache import open_cache
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.prepare import prepare
from cardionets_core.durable import write_json
from cardionets_core.errors import CardioNetsError, DataError
from server.app import RESULT
from server.report import finite
from server.tracking.settings import write_settings
from server.tracking.tracker import send_now
from simulation.asked import check_initial, ready_folder, refuse_file
from simulation.begun import clear_earlier, note_begun
from simulation.compare import Setup, compare
from simulation.flower import run_locally, run_on_flower
from simulation.make import make_hospitals, real_folders
from simulation.rosters import with_roster
from simulation.scenario import Scenario
from simulation.screen import Screen

Engine = Literal["flower", "local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the researcher typed.

    Attributes:
        scenario: the scenario.
        out: run folder.
        data: folder of real recordings, for scenarios that use them.
        engine: ``flower`` (Flower's simulation engine) or ``local`` (in this process).
        replace: do away with an earlier run in the folder; its hospitals are kept if they are the same.
        resume: go on with an earlier run in the folder, from its newest round.
        seed: replaces the study's seed, if given.
        cores: how many processes compute at a time.
        compare: whether to run the other arms.
        track: whether to mirror the study in MLflow.
        tracking_uri: of a tracking server; empty: a store in the run folder.
        initial: folder of the weights that the study names as ``initial``.
    """

    scenario: Scenario
    out: Path
    data: Path | None = None
    engine: Engine = "flower"
    replace: bool = False
    resume: bool = False
    seed: int | None = None
    cores: int = 2
    compare: bool = True
    track: bool = True
    tracking_uri: str = ""
    initial: Path | None = None


def run_scenario(request: RunRequest, screen: Screen) -> dict[str, Any]:
    """Run a scenario.

    Returns:
        The content of ``result.json``.

    Raises:
        UsageError: the folder holds an earlier run and neither ``replace`` nor ``resume`` was asked for, or
            another one than ``resume`` could go on with, or cannot be written to, or an option does not fit
            the scenario.
        CardioNetsError: no site, or too few, could serve; what could be done lies in the folder.
    """
    started = time.monotonic()
    refuse_file(request.out)
    real_folders(request.scenario, request.data)
    check_initial([request.scenario.study], request.initial)
    clear_earlier(request.out, replace=request.replace, resume=request.resume)
    ready_folder(request.out)
    screen.note(f"{request.scenario.name}: {len(request.scenario.hospitals)} hospitals in {request.out}")
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
    study = with_roster(study, paths)
    cohorts, broken = index_hospitals(paths, screen, cores=request.cores)
    note_begun(request.out, study, request.scenario)
    seconds = {"hospitals_and_index": time.monotonic() - started}
    track = request.track
    if track:
        write_settings(request.out, Tracking(uri=request.tracking_uri))
    if request.engine == "flower":
        result = run_on_flower(
            study,
            paths,
            folder=request.out,
            progress=screen.event,
            track=track,
            cores=request.cores,
            initial=request.initial,
            events=request.scenario.events,
            seed=request.scenario.seed,
        )
    else:
        result = run_locally(
            study,
            paths,
            folder=request.out,
            progress=screen.event,
            track=track,
            initial=request.initial,
            events=request.scenario.events,
            seed=request.scenario.seed,
        )
    seconds["study"] = time.monotonic() - started - sum(seconds.values())
    result["scenario"] = request.scenario.name
    result["broken_sites"] = broken
    comparison = request.scenario.comparison
    external = frozenset(hospital.site for hospital in request.scenario.hospitals if hospital.external)
    if request.compare and comparison.enabled:
        setup = Setup(
            study=study,
            cohorts=cohorts,
            site_paths={path.parent.name: path for path in paths},
            external=external,
            hospitals=request.scenario.hospitals_digest,
            folder=request.out / "compare",
            seeds=tuple(dict.fromkeys((study.seed, *comparison.seeds))),
            trained=request.out,
            leave_one_out=comparison.leave_one_out,
            initial=request.initial,
            pooled=comparison.pooled,
            events=request.scenario.events,
            seed=request.scenario.seed,
        )
        compared, failed = compare(setup, jobs=request.cores, cores=request.cores, screen=screen)
        result.update({name: compared[name] for name in ("comparison", "differences")})
        if failed:
            result["failed_cells"] = {name: each.code for name, each in failed.items()}
    seconds["comparison"] = time.monotonic() - started - sum(seconds.values())
    from simulation.generated import study_drawings

    result["drawings"], cases = study_drawings(study, cohorts, folder=request.out, external=external)
    seconds["drawings"] = time.monotonic() - started - sum(seconds.values())
    from simulation.plots import FinishedRun, plot_run

    # The pictures are drawn from what result.json says, not from what it was made of.
    run = FinishedRun(
        study=study,
        folder=request.out,
        result=finite(result),
        cohorts=cohorts,
        external=external,
        cases=cases,
    )
    result["plots"] = plot_run(run, out=request.out / "plots")
    seconds["plots"] = time.monotonic() - started - sum(seconds.values())
    result["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    content = finite(result)
    write_json(request.out / RESULT, content)
    if track:
        # The plots and what was compared came after the study.
        content["tracking"] = send_now(request.out)
        write_json(request.out / RESULT, content)
    return content


def index_hospitals(
    paths: list[Path], screen: Screen, *, cores: int = 1
) -> tuple[dict[str, Cohort], dict[str, str]]:
    """Prepare every hospital's cache.

    Returns:
        The cohorts by site, and the sites that could not be indexed with their code; the others go on.

    Raises:
        DataError: not one hospital could be indexed.
    """
    cohorts: dict[str, Cohort] = {}
    failures = _prepare_stale([path for path in paths if not _is_fresh(path)], screen, cores=cores)
    broken: dict[str, str] = {}
    for path in paths:
        if path in failures:
            broken[path.parent.name], message = failures[path]
            screen.warn(f"{path.parent.name} cannot take part [{broken[path.parent.name]}]: {message}")
        else:
            config = read_site(path)
            cohorts[config.site] = open_cache(config, check="quick")
    if not cohorts:
        raise DataError(
            "not one hospital could be indexed", where="indexing", remedy="mend the faults printed above"
        )
    return cohorts, broken


def _is_fresh(path: Path) -> bool:
    """Whether a site's cache is there and up to date."""
    try:
        open_cache(read_site(path))
    except CardioNetsError:
        return False
    return True


def _prepare_stale(paths: list[Path], screen: Screen, *, cores: int) -> dict[Path, tuple[str, str]]:
    """Prepare sites, several at a time where there are cores; those that failed, with code and text."""
    found: dict[Path, tuple[str, str]] = {}
    if paths:
        screen.note(f"indexing {len(paths)} of the hospitals")
    if cores == 1 or len(paths) < 2:
        for path in paths:
            found[path] = _prepare_one(path, screen)
            screen.note(f"{path.parent.name}: indexed · {len(found)} of {len(paths)}")
    else:
        with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = {pool.submit(_prepare_one, path): path for path in paths}
            for job in as_completed(jobs):
                found[jobs[job]] = job.result()
                screen.note(f"{jobs[job].parent.name}: indexed · {len(found)} of {len(paths)}")
    return {path: failure for path, failure in found.items() if failure[0]}


def _prepare_one(path: Path, screen: Screen | None = None) -> tuple[str, str]:
    """The code and text of what stopped it, or two empty strings; a screen is told of the recordings read."""

    def told(stage: str, done: int, total: int) -> None:
        if screen is not None and stage == "read":
            screen.stage(f"{path.parent.name}: recordings read", done, total)

    try:
        prepare(read_site(path), progress=told)
    except CardioNetsError as error:
        return error.code, str(error)
    return "", ""
