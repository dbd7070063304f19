"""Makes the hospitals of a scenario on disk, and knows whether they are there already.

Comes in: a scenario and a folder. Goes out: a folder a hospital in the format that a real one would have,
each with its ``site.yaml``, and ``hospitals.json``, which names the digest of what was made. Nothing is
written beside it that a real hospital would not have: the truth is drawn again by ``draw_patient``.

Each patient is drawn from a seed of its own, so the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cardionets_core.errors import FolderMissingError, UsageError
from simulation.asked import ready_folder, refuse_file
from simulation.patients import Patient, Visit, draw_patient
from simulation.scenario import DrawnHospital, FolderHospital, Scenario
from simulation.writers import LAYOUTS, Rows
from simulation.writers.layout import OF_LABELS, OF_SIGNALS
from simulation.writers.site_document import site_document, write_site

__all__ = ["Patient", "Visit", "draw_patient", "make_hospitals", "real_folders"]

MARKER = "hospitals.json"
TABLES_OF_LABELS = ("diagnoses.csv", "records_w_diag_icd10.csv")
"""Not there in a hospital without diagnoses."""
_CHUNK = 8

Progress = Callable[[str, int, int], None]
"""Called with a site's name, its patients done and its patients in all."""


def make_hospitals(
    scenario: Scenario,
    out: Path,
    *,
    data: Path | None = None,
    workers: int = 2,
    replace: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Make all hospitals, or find that they have been made.

    Args:
        scenario: what to make.
        out: the folder for the hospitals; made if absent.
        data: folder of real recordings, for hospitals with the layout ``wfdb_folder``.
        workers: processes; 1 works in this one.
        replace: delete what is there of another scenario or of a broken run, and make all anew; hospitals of
            this very scenario that are complete are kept.
        progress: told about the patients done.

    Returns:
        The ``site.yaml`` of each hospital, in the order of the sites' names.

    Raises:
        UsageError: the folder holds something else, is incomplete or cannot be made, or ``data`` is needed.
        FolderMissingError: a folder of real recordings is not there.
    """
    sources = real_folders(scenario, data)
    sites = sorted(hospital.site for hospital in scenario.hospitals)
    stamp: dict[str, Any] = {
        "schema_version": 1,
        "scenario": scenario.name,
        "sites": sites,
        "hospitals_digest": scenario.hospitals_digest,
        "data": {site: str(path) for site, path in sorted(sources.items())},
    }
    documents = [out / site / "site.yaml" for site in sites]
    if _is_made(out, stamp, documents, replace=replace):
        return documents
    ready_folder(out)
    _write_marker(out, stamp | {"complete": False})
    with _pool(workers) as pool:
        for hospital in scenario.hospitals:
            _make_one(scenario, hospital, out / hospital.site, pool=pool, sources=sources, progress=progress)
    _write_marker(out, stamp | {"complete": True})
    return documents


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Workers for all hospitals; None works in this process."""
    if workers <= 1:
        yield None
        return
    # Fresh processes: a fork of a process that has threads (torch, a test runner) may hang.
    pool = ProcessPoolExecutor(max_workers=workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _make_one(
    scenario: Scenario,
    hospital: DrawnHospital | FolderHospital,
    folder: Path,
    *,
    pool: ProcessPoolExecutor | None,
    sources: dict[str, Path],
    progress: Progress | None,
) -> None:
    """Write one hospital, its ``site.yaml`` last."""
    folder.mkdir(parents=True)
    if isinstance(hospital, FolderHospital):
        ecg = {"format": "wfdb", "folder": str(sources[hospital.site])}
        source: dict[str, Any] = {"kind": "local_site", "ecg": ecg}
        phases = OF_SIGNALS
    else:
        _make_drawn(scenario, hospital, folder, pool=pool, progress=progress)
        source, phases = LAYOUTS[hospital.layout].source(hospital), LAYOUTS[hospital.layout].phases
        if "cmr" in hospital.lacks:
            phases = tuple(phase for phase in phases if phase in OF_LABELS)
        if "labels" in hospital.lacks:
            for table in TABLES_OF_LABELS:
                (folder / table).unlink(missing_ok=True)
    _write_secret(folder / "secret" / "pseudonym.key", scenario, hospital.site)
    write_site(folder / "site.yaml", site_document(hospital, source=source, phases=phases))


def _write_secret(path: Path, scenario: Scenario, site: str) -> None:
    """A key that follows from the scenario, so that splits, and with them the model, repeat.

    A real site draws its key at random; this one protects nobody, since its patients are drawn.
    """
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(hashlib.sha256(f"simulated/{scenario.seed}/{site}".encode()).digest())


def real_folders(scenario: Scenario, data: Path | None) -> dict[str, Path]:
    """Absolute folders of the hospitals that are real recordings.

    Raises:
        UsageError: the scenario has such hospitals, and no folder was given.
        FolderMissingError: a folder of recordings is not there.
    """
    found: dict[str, Path] = {}
    for hospital in scenario.hospitals:
        if not isinstance(hospital, FolderHospital):
            continue
        if data is None:
            raise UsageError(
                f"scenario {scenario.name!r} reads real recordings for {hospital.site}",
                where="--data",
                remedy=f"pass --data DIR, the folder that holds {hospital.folder}",
            )
        folder = (data / hospital.folder).resolve()
        if not folder.is_dir():
            raise FolderMissingError(
                f"there is no folder of recordings for {hospital.site}",
                where=str(folder),
                remedy=f"pass as --data the folder that holds {hospital.folder}",
            )
        found[hospital.site] = folder
    return found


def _is_made(out: Path, stamp: dict[str, Any], documents: list[Path], *, replace: bool) -> bool:
    """True where all is there already; clears the way, or refuses, where it is not."""
    refuse_file(out)
    if not out.exists() or not any(out.iterdir()):
        return False
    found = _read_marker(out)
    if found == stamp | {"complete": True} and all(path.is_file() for path in documents):
        return True
    if not replace:
        if not found:
            what = "the folder is not empty, and no hospitals of a scenario are in it"
        elif not found.get("complete"):
            what = "the hospitals in this folder are incomplete: an earlier run was broken off"
        else:
            what = "the folder holds the hospitals of another scenario"
        raise UsageError(
            what, where=str(out), remedy="choose another folder, or pass --replace to make it anew"
        )
    earlier = found.get("sites", [])
    for site in {*stamp["sites"], *(name for name in earlier if isinstance(name, str) and "/" not in name)}:
        if site not in ("", ".", "..") and (out / site).is_dir():
            shutil.rmtree(out / site)
    return False


def _read_marker(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_marker(out: Path, content: dict[str, Any]) -> None:
    draft = out / f"{MARKER}.part"
    draft.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(out / MARKER)


def _make_drawn(
    scenario: Scenario,
    hospital: DrawnHospital,
    folder: Path,
    *,
    pool: ProcessPoolExecutor | None,
    progress: Progress | None,
) -> None:
    """Write a drawn hospital's files and tables."""
    rows: Rows = {}
    done = 0
    for part in _parts(scenario, hospital, folder, pool=pool):
        for name, found in part.items():
            rows.setdefault(name, []).extend(found)
        done = min(done + _CHUNK, hospital.patients)
        if progress is not None:
            progress(hospital.site, done, hospital.patients)
    LAYOUTS[hospital.layout].write_tables(folder, rows)


def _parts(
    scenario: Scenario, hospital: DrawnHospital, folder: Path, *, pool: ProcessPoolExecutor | None
) -> Iterator[Rows]:
    """Rows of each chunk of patients, in order."""
    starts = range(0, hospital.patients, _CHUNK)
    if pool is None:
        for start in starts:
            yield _write_chunk(scenario, hospital.site, folder, start)
        return
    futures = [pool.submit(_write_chunk, scenario, hospital.site, folder, start) for start in starts]
    for future in futures:
        yield future.result()


def _write_chunk(scenario: Scenario, site: str, folder: Path, start: int) -> Rows:
    """Draw and write one chunk of patients; runs in a worker."""
    hospital = scenario.hospitals[scenario.place_of(site)]
    rows: Rows = {}
    if not isinstance(hospital, DrawnHospital):
        return rows
    for index in range(start, min(start + _CHUNK, hospital.patients)):
        patient = draw_patient(scenario, site, index)
        for name, found in LAYOUTS[hospital.layout].write_patient(folder, patient, hospital).items():
            rows.setdefault(name, []).extend(found)
    return rows
