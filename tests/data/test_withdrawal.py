"""Kills and withdrawals: what has been read is kept, and who has withdrawn is nowhere, killed or not.

The kills are real: a process of its own ends itself with SIGKILL before the n-th change that it would make to
the disk, for many n.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import open_cache
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.manifest import store_folder
from cardionets_core.data.prepare import prepare
from cardionets_core.data.pseudonym import pseudonym
from cardionets_core.data.store import LOG
from cardionets_core.data.store_log import read_log
from cardionets_core.errors import CacheStaleError

KEY = bytes(range(32))
RATE_HZ = 250
PEOPLE = ("PID-A", "PID-B", "PID-C", "PID-D")
LEAVES = "PID-B"

# Runs in a process of its own: ends it before the n-th change of the disk, and counts the changes.
CHILD = """
import json, os, signal
from cardionets_core.config.site import SiteConfig
from cardionets_core.data import fingerprint, quality, store
from cardionets_core.data.prepare import prepare

fingerprint.code_digest = lambda: "code"
quality.filter_ecg = lambda signal_mv: signal_mv  # loading the compiled filter would take a second each time
store.SYNC_SECONDS = 1e9  # by the clock, the number of changes would differ from run to run
calls = 0

def watched(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, call)

report = os.open(REPORT, os.O_WRONLY | os.O_CREAT)
say = os.pwrite
for name in ("write", "pwrite", "fsync", "ftruncate", "rename", "replace", "unlink", "rmdir", "mkdir"):
    watched(name)

def tell(stage, done, total):
    say(report, json.dumps([stage, done]).ljust(30).encode(), 0)

prepare(SiteConfig.model_validate_json(CONFIG), progress=tell)
say(report, json.dumps(["calls", calls]).ljust(30).encode(), 0)
"""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cardionets_core.data.prepare"])


def prepare_and_die(config: SiteConfig, folder: Path, *, kill_at: int) -> tuple[str, int]:
    """Prepare in another process, killed before change ``kill_at``; gives what it told last."""
    names = {"CONFIG": config.model_dump_json(), "KILL_AT": kill_at, "REPORT": str(folder / "told")}
    (folder / "told").write_text(json.dumps(["nothing", 0]).ljust(30))
    child = SERVER.Process(target=exec, args=(CHILD, names))
    child.start()
    child.join(60)
    assert child.exitcode == (0 if kill_at < 0 else -9)
    stage, number = json.loads((folder / "told").read_text())
    return str(stage), int(number)


def write_ecg(path: Path, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(RATE_HZ * 5) / RATE_HZ
    beat = np.exp(-0.5 * (((t % 0.8) - 0.4) / 0.02) ** 2)
    one, two, *chest = (rng.normal(0.8, 0.2, 8)[:, None] * beat + 0.01 * rng.normal(size=(8, len(t)))) * 1000
    rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest]
    lines = ["I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"]
    lines += [",".join(f"{value:.1f}" for value in sample) for sample in np.stack(rows).T]
    path.write_text("\n".join(lines) + "\n")


def write_cine(path: Path, *, radius_px: float) -> None:
    import nibabel as nib

    y, x = np.mgrid[-30:30, -30:30]
    radii = radius_px - 3 * np.cos(2 * np.pi * np.arange(20) / 20)
    noise = np.random.default_rng(round(radius_px)).integers(0, 40, (60, 60, 20))
    data = ((np.hypot(y, x)[:, :, None] < radii) * 200 + noise).astype(np.int16)
    image = nib.Nifti1Image(data[:, :, None, :], np.eye(4))
    image.header.set_zooms((2.0, 2.0, 8.0, 30.0))
    image.to_filename(path)


def hospital(folder: Path) -> SiteConfig:
    """Four people with two ECGs each, and two of them with a cine; nobody has withdrawn."""
    for name in ("ecg", "cmr"):
        (folder / name).mkdir(parents=True)
    (folder / "key").write_bytes(KEY)
    lines = ["patient,visit,ecg,cine"]
    for number, person in enumerate(PEOPLE):
        cine = f"{person}.nii.gz" if number < 2 else ""
        if cine:
            write_cine(folder / "cmr" / cine, radius_px=10 + 2 * number)
        for visit in (1, 2):
            write_ecg(folder / "ecg" / f"{person}_{visit}.csv", seed=10 * number + visit)
            lines.append(f"{person},{visit},{person}_{visit}.csv,{cine if visit == 1 else ''}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    (folder / "withdrawn.txt").write_text("")
    ecg = {"format": "csv", "folder": folder / "ecg", "rate_hz": RATE_HZ, "unit": "uV"}
    cmr = {"format": "nifti", "folder": folder / "cmr", "view": "4ch"}
    return SiteConfig(
        site="here",
        source={"kind": "local_site", "ecg": ecg, "cmr": cmr, "index": folder / "index.csv",
                "withdrawals": folder / "withdrawn.txt"},
        policy={"phases": ["ecg_mae"]},
        folders={"cache": folder / "cache", "state": folder / "state", "secret": folder / "key"},
    )  # fmt: skip


def moved(config: SiteConfig, origin: Path, target: Path) -> SiteConfig:
    """The hospital again in another folder; times of change are kept."""
    shutil.copytree(origin, target)
    return SiteConfig.model_validate_json(config.model_dump_json().replace(str(origin), str(target)))


def everything_under(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def traces_of(config: SiteConfig, cohort: Cohort, person: str) -> list[bytes]:
    """What of a person could stand in a file: pseudonym, keys, and pieces of every packed array."""
    import pyarrow.parquet as pq

    name = pseudonym(KEY, person)
    folder = config.folders.cache / "cohort"
    rows = pq.ParquetFile(folder / "rows.parquet", pre_buffer=False).read(use_threads=False).to_pylist()
    table = pq.ParquetFile(folder / "records.parquet", pre_buffer=False).read(use_threads=False)
    records = [record for record in table.to_pylist() if record["pseudonym"] == name]
    traces = [name.encode(), *(record[word].encode() for record in records for word in ("key", "digest"))]
    for row in (row for row in rows if row["pseudonym"] == name):
        counts = np.rint(cohort.ecg_mv(row["ecg"]) * 1000).astype("<i2")
        traces += [lead[start : start + 50].tobytes() for lead in counts for start in range(0, 1200, 100)]
        if row["4ch"] >= 0:
            cine = cohort.cines[row["4ch"]]
            traces += [cine[frame, 30:70].tobytes() for frame in range(50)]
    return traces


@pytest.fixture(scope="module", autouse=True)
def as_in_the_child() -> Iterator[None]:
    """Both processes agree, also while somebody edits the code, and load no compiled filter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cardionets_core.data.fingerprint.code_digest", lambda: "code")
        patch.setattr("cardionets_core.data.quality.filter_ecg", lambda signal_mv: signal_mv)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SiteConfig, Path]:
    """The hospital with its cache, and where it lies."""
    folder = tmp_path_factory.mktemp("made") / "hospital"
    config = hospital(folder)
    prepare(config)
    return config, folder


def kill_points(calls: int, *, number: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(1, calls, number)})


def test_a_killed_prepare_loses_the_record_in_hand_at_most(
    made: tuple[SiteConfig, Path], tmp_path: Path, decoded: list[str]
) -> None:
    config, origin = made
    expected = open_cache(config).digest
    first = moved(config, origin, tmp_path / "count")
    shutil.rmtree(first.folders.cache)
    stage, calls = prepare_and_die(first, tmp_path, kill_at=-1)
    assert stage == "calls" and calls > 50 and open_cache(first).digest == expected
    lost = []
    for kill_at in kill_points(calls, number=10):
        here = moved(config, origin, tmp_path / str(kill_at))
        shutil.rmtree(here.folders.cache)
        stage, done = prepare_and_die(here, tmp_path, kill_at=kill_at)
        kept = 0
        with contextlib.suppress(FileNotFoundError):
            kept = len(read_log(store_folder(here) / LOG).entries)
        if stage == "read":
            assert kept in (done, done + 1)
        decoded.clear()
        cohort = prepare(here)
        assert len(decoded) == 10 - kept and cohort.digest == expected
        assert open_cache(here).digest == expected
        lost.append(len(decoded))
        shutil.rmtree(tmp_path / str(kill_at))
    assert lost[0] == 10 and lost[-1] == 0 and len(set(lost)) > 4


def test_a_resumed_prepare_counts_what_was_done_before(made: tuple[SiteConfig, Path], tmp_path: Path) -> None:
    config, origin = made
    here = moved(config, origin, tmp_path / "here")
    shutil.rmtree(here.folders.cache)
    stage, done = prepare_and_die(here, tmp_path, kill_at=30)
    assert stage == "read" and done > 0
    kept = len(read_log(store_folder(here) / LOG).entries)
    told: list[tuple[str, int, int]] = []
    prepare(here, progress=lambda *what: told.append(what))
    assert told[:3] == [("list", 10, 10), ("read", kept, 10), ("read", kept + 1, 10)]


def test_who_has_withdrawn_is_nowhere_after_the_next_prepare(
    made: tuple[SiteConfig, Path], tmp_path: Path, decoded: list[str]
) -> None:
    config, origin = made
    here = moved(config, origin, tmp_path / "here")
    cohort = open_cache(here)
    traces = traces_of(here, cohort, LEAVES)
    before = everything_under(here.folders.cache)
    assert len(traces) > 60 and sum(trace in before for trace in traces) == len(traces)
    (here.folders.cache / "report").mkdir()
    (here.folders.cache / "report" / "quality.html").write_bytes(traces[0])
    held = cohort.ecg_counts
    (tmp_path / "here" / "withdrawn.txt").write_text(f"{LEAVES}\n")
    for check in ("full", "quick"):
        with pytest.raises(CacheStaleError, match="withdrawals"):
            open_cache(here, check=check)  # type: ignore[arg-type]
    after = prepare(here)
    assert decoded == [] and after.refusals == {"withdrawn": 3} and after.patients(np.arange(6)) == 3
    everything = everything_under(here.folders.cache)
    assert not [trace for trace in traces if trace in everything]
    assert not (here.folders.cache / "report").exists()
    # A training that holds the old map sees zeros, and the others where they were.
    assert (held == 0).sum() > 2 * 12 * 1200 and len(held) == 8 * 12 * 1250
    fresh = moved(here, tmp_path / "here", tmp_path / "fresh")
    shutil.rmtree(fresh.folders.cache)
    assert prepare(fresh).digest == after.digest == open_cache(here).digest


def test_a_withdrawal_that_is_killed_is_finished_by_the_next_prepare(
    made: tuple[SiteConfig, Path], tmp_path: Path
) -> None:
    config, origin = made
    traces = traces_of(config, open_cache(config), LEAVES)

    def leaving(name: str) -> SiteConfig:
        here = moved(config, origin, tmp_path / name)
        (tmp_path / name / "withdrawn.txt").write_text(f"{LEAVES}\n")
        (here.folders.cache / "report").mkdir()
        (here.folders.cache / "report" / "quality.html").write_bytes(traces[0])
        return here

    stage, calls = prepare_and_die(leaving("count"), tmp_path, kill_at=-1)
    assert stage == "calls"
    digests = set()
    for kill_at in kill_points(calls, number=11):
        here = leaving(str(kill_at))
        prepare_and_die(here, tmp_path, kill_at=kill_at)
        if kill_at < calls - 4:  # after the swap only the earlier publication is still to be deleted
            for check in ("full", "quick"):
                with pytest.raises(CacheStaleError):
                    open_cache(here, check=check)  # type: ignore[arg-type]
        digests.add(prepare(here).digest)
        everything = everything_under(here.folders.cache)
        assert not [trace for trace in traces if trace in everything]
        shutil.rmtree(tmp_path / str(kill_at))
    assert len(digests) == 1


def test_a_list_that_grows_while_it_is_read_is_not_missed(
    made: tuple[SiteConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cardionets_core.data import prepare as module

    config, origin = made
    here = moved(config, origin, tmp_path / "here")
    shutil.rmtree(here.folders.cache)
    real = module.take_listing

    def slow(*arguments: Any, **options: Any) -> Any:
        listing = real(*arguments, **options)
        (tmp_path / "here" / "withdrawn.txt").write_text(f"{LEAVES}\n")
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(module, "take_listing", slow)
        assert prepare(here).refusals == {}
    with pytest.raises(CacheStaleError, match="withdrawals"):
        open_cache(here, check="quick")
    assert prepare(here).refusals == {"withdrawn": 3}


@pytest.mark.parametrize("back_after_kill_at", [3, 8, 10, 12, 14])
def test_who_comes_back_after_a_killed_withdrawal_is_read_again(
    made: tuple[SiteConfig, Path], tmp_path: Path, back_after_kill_at: int
) -> None:
    """The list was wrong and is mended: blanks must not pass for recordings."""
    config, origin = made
    here = moved(config, origin, tmp_path / "here")
    (tmp_path / "here" / "withdrawn.txt").write_text(f"{LEAVES}\n")
    prepare_and_die(here, tmp_path, kill_at=back_after_kill_at)
    (tmp_path / "here" / "withdrawn.txt").write_text("")
    cohort = prepare(here)
    assert cohort.digest == open_cache(config).digest == open_cache(here).digest
    assert all(np.abs(cohort.ecg_mv(record)).max() > 0.1 for record in range(8))
