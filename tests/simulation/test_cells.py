"""Cells: in processes of their own, none twice, and none stops the others."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from simulation.cells import runner
from simulation.cells.cell import RESULT, Cell, CellResult, digest_of, load_result, save_result
from simulation.cells.child import BEGUN, LOG, Failure
from simulation.cells.runner import run_cells
from simulation.cells.scores import result_of_scores, scores_of
from simulation.scoring import Columns, Score
from simulation.screen import Screen


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from cell_works import Counted

    return Counted


def go(cells, folder, jobs: int | None = 2, **more):
    stream = io.StringIO()
    screen = Screen(stream, live=False)
    return run_cells(cells, folder=folder, jobs=jobs, cores=2, screen=screen, **more), stream.getvalue()


def test_a_result_keeps_every_bit_and_belongs_to_its_digest(tmp_path):
    arrays = {"x": np.random.default_rng(0).normal(size=5), "y": np.array([np.nan, 1.0])}
    save_result(tmp_path, CellResult(content={"a": [1.5, None]}, arrays=arrays, seconds=2.0), digest="d")
    found = load_result(tmp_path, digest="d")
    assert found.content == {"a": [1.5, None]} and found.seconds == 2.0
    assert all(np.array_equal(found.arrays[name], arrays[name], equal_nan=True) for name in arrays)
    assert load_result(tmp_path, digest="other") is None
    (tmp_path / RESULT).write_bytes((tmp_path / RESULT).read_bytes()[:40])
    assert load_result(tmp_path, digest="d") is None


def test_scores_come_back_as_they_were():
    rng = np.random.default_rng(1)
    columns = Columns(r2_K=rng.normal(size=4), replicates_MK=rng.normal(size=(6, 4)))
    words = {"task": "probe", "metric": "r2_mean", "population": "members", "patients": 9}
    scores = [
        Score(arm="federated", mean=0.1, replicates=rng.normal(size=6), columns=columns, **words),
        Score(arm="pooled", mean=0.2, replicates=rng.normal(size=6), **words),
    ]
    first, second = scores_of(result_of_scores(scores))
    assert (first.arm, first.mean, second.arm, second.columns) == ("federated", 0.1, "pooled", None)
    assert np.array_equal(first.replicates, scores[0].replicates)
    assert np.array_equal(first.columns.replicates_MK, columns.replicates_MK)


def test_a_digest_follows_what_decides_and_nothing_else():
    assert digest_of(a=1, b="x") == digest_of(b="x", a=1) != digest_of(a=2, b="x")


def test_cells_run_once_and_one_that_fails_stops_no_other(counted, tmp_path):
    tries = {name: tmp_path / f"{name}.tries" for name in ("good", "wrong", "bug", "killed")}
    works = {
        "good": counted(tries=tries["good"], value=2.5),
        "wrong": counted(tries=tries["wrong"], fails="data"),
        "bug": counted(tries=tries["bug"], fails="bug"),
        "killed": counted(tries=tries["killed"], fails="killed"),
    }
    cells = [Cell(name=name, digest=name, work=work) for name, work in works.items()]
    seen = []
    found, told = go(
        cells, tmp_path / "cells", jobs=4, done=lambda cell, result: seen.append(cell.name) or ""
    )
    assert list(found) == list(works) and found["good"].content == {"value": 2.5}
    assert found["good"].peak_bytes > 1e7 and np.array_equal(found["good"].arrays["x"], [2.5] * 3)
    assert found["wrong"] == Failure(code="data", text="the disk is empty (disk): fill it") or (
        found["wrong"].code == "data" and "the disk is empty" in found["wrong"].text
    )
    assert found["bug"].code == "bug" and "ZeroDivisionError" in found["bug"].text
    assert found["killed"].code == "killed" and "memory" in found["killed"].text
    assert told.count("FAILED") == 3
    assert "said by a cell" in (tmp_path / "cells" / "good" / LOG).read_text()
    # Again: what is done is done, what failed is tried again, in the folder that it left.
    again, told = go(cells[:2], tmp_path / "cells", done=lambda cell, result: seen.append(cell.name) or "")
    assert tries["good"].read_text().count("\n") == 1
    assert tries["wrong"].read_text().split() == ["False", "True"]
    assert again["good"].content == {"value": 2.5} and "1 of 2 cells were done before" in told
    assert seen == ["good", "good"]


def test_a_folder_of_another_cell_is_not_taken_up(counted, tmp_path):
    tries = tmp_path / "tries"
    for digest, anew in (("a", False), ("b", False), ("b", True)):
        work = counted(tries=tries, fails="data" if not anew else "", starts_anew=anew)
        go([Cell(name="same", digest=digest, work=work)], tmp_path / "cells")
    # The second is another cell; the third is the same, but may not go on from where it was.
    assert tries.read_text().split() == ["False", "False", "False"]
    assert json.loads((tmp_path / "cells" / "same" / BEGUN).read_text())["digest"] == "b"


def test_the_processes_end_when_the_work_is_broken_off(counted, tmp_path, monkeypatch):
    started = []
    begin = runner._start
    monkeypatch.setattr(runner, "_start", lambda *some: started.append(begin(*some)) or started[-1])

    def break_off(seconds):
        if (tmp_path / "tries").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(runner.time, "sleep", break_off)
    work = counted(tries=tmp_path / "tries", waits_s=600.0)
    with pytest.raises(KeyboardInterrupt):
        go([Cell(name="long", digest="x", work=work)], tmp_path / "cells")
    assert [each.process.is_alive() for each in started] == [False]
    assert load_result(tmp_path / "cells" / "long", digest="x") is None


def test_memory_sets_the_pace(monkeypatch):
    class Memory:
        available = 10 * 2**30

    monkeypatch.setattr(runner.psutil, "virtual_memory", lambda: Memory)
    screen = Screen(io.StringIO(), live=False)
    pace = runner._Pace(None, 16, [])
    # One alone, until it is known what it takes.
    assert pace.allows(0, left=9, screen=screen) and not pace.allows(1, left=9, screen=screen)
    pace.saw(2 * 2**30)
    # 80 % of 10 GiB holds four of 2 GiB.
    assert pace.allows(0, left=9, screen=screen)
    Memory.available = 3 * 2**30
    assert not pace.allows(2, left=9, screen=screen)
    Memory.available = 2**20
    # One always goes: what else is there to do.
    assert pace.allows(0, left=9, screen=screen)
    assert runner._Pace(3, 1, []).allows(2, left=9, screen=screen)
    assert not runner._Pace(3, 1, []).allows(3, left=9, screen=screen)
    Memory.available = 2**40
    assert not runner._Pace(None, 4, [1]).allows(4, left=9, screen=screen)
