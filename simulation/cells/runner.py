"""Runs cells: several at a time, each in a process of its own, and none twice.

Comes in: cells and a folder. Goes out: what each gave, or why it gave nothing; one that fails stops no other.
What was done before with the same digest is taken as it is, so a grid that was broken off goes on.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from simulation.cells.cell import Cell, CellResult, load_result
from simulation.cells.child import Failure, failure_of, run_cell
from simulation.screen import Screen

Outcome = CellResult | Failure
USABLE = 0.8
"""Share of the free memory that cells may fill."""
LOOK_S = 0.05
GRACE_S = 5.0


@dataclass(kw_only=True)
class _Running:
    cell: Cell
    process: BaseProcess
    folder: Path


def run_cells(
    cells: Sequence[Cell],
    *,
    folder: Path,
    jobs: int | None,
    cores: int,
    screen: Screen,
    done: Callable[[Cell, CellResult], str] = lambda cell, result: "",
) -> dict[str, Outcome]:
    """Run all cells that are not done.

    Args:
        cells: with names that differ.
        folder: holds a folder a cell.
        jobs: processes at a time; None finds as many as memory and cores allow.
        cores: most processes where ``jobs`` is None.
        screen: told of each cell.
        done: called once for each cell that has a result, old or new; what it gives is told with the cell.

    Returns:
        By name, in the order of the cells.

    Raises:
        KeyboardInterrupt: passed on, after all processes have ended.
    """
    found: dict[str, Outcome] = {}
    waiting: list[Cell] = []
    for cell in cells:
        result = load_result(folder / cell.name, digest=cell.digest)
        if result is None:
            waiting.append(cell)
        else:
            found[cell.name] = result
            done(cell, result)
    if found:
        screen.note(f"{len(found)} of {len(cells)} cells were done before")
    pace = _Pace(jobs, cores, [each.peak_bytes for each in found.values() if isinstance(each, CellResult)])
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and pace.allows(len(running), left=len(running) + len(waiting), screen=screen):
                running.append(_start(waiting.pop(0), folder))
            for each in [each for each in running if not each.process.is_alive()]:
                running.remove(each)
                each.process.join()
                outcome = _outcome(each)
                found[each.cell.name] = outcome
                place = f"{len(found)} of {len(cells)} · {each.cell.name}"
                if isinstance(outcome, Failure):
                    screen.warn(f"{place} · FAILED [{outcome.code}]: {outcome.text}")
                else:
                    pace.saw(outcome.peak_bytes)
                    told = done(each.cell, outcome)
                    screen.note(f"{place} · {outcome.seconds:.0f} s" + (f" · {told}" if told else ""))
            time.sleep(LOOK_S)
    finally:
        _end(running)
    return {cell.name: found[cell.name] for cell in cells}


class _Pace:
    """How many cells may run at a time."""

    def __init__(self, jobs: int | None, cores: int, peaks: Sequence[int]) -> None:
        self._jobs = jobs
        self._cores = max(1, cores)
        self._peak = max(peaks, default=0)
        self._told = 0

    def saw(self, peak_bytes: int) -> None:
        """A cell has ended whose process held so much."""
        self._peak = max(self._peak, peak_bytes)

    def allows(self, running: int, *, left: int, screen: Screen) -> bool:
        """Whether one more may start beside those that run."""
        if self._jobs is not None:
            return running < self._jobs
        if not self._peak:
            # Nobody knows yet what a cell needs: the first one is measured alone.
            return running == 0
        free = psutil.virtual_memory().available
        # What runs has not taken all that it will need: count each with its whole peak.
        fits = running + int(max(0.0, USABLE * free - running * self._peak) // self._peak)
        most = max(1, min(self._cores, fits))
        if left > 1 and most != self._told and running < most:
            self._told = most
            screen.note(
                f"{min(most, left)} cells at a time: one took up to {self._peak / 2**20:.0f} MiB, "
                f"{free / 2**20:.0f} MiB are free, {self._cores} cores may be used"
            )
        return running < most


def _start(cell: Cell, folder: Path) -> _Running:
    # A fresh process: a fork of one that has threads (torch, a live line) may hang.
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_cell, args=(cell, folder / cell.name), name=cell.name, daemon=True)
    # Ctrl-C reaches the whole group of processes: a child that is still loading must not tell a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return _Running(cell=cell, process=process, folder=folder / cell.name)


def _outcome(each: _Running) -> Outcome:
    result = load_result(each.folder, digest=each.cell.digest) if each.process.exitcode == 0 else None
    return failure_of(each.folder, each.process.exitcode) if result is None else result


def _end(running: Sequence[_Running]) -> None:
    for each in running:
        each.process.terminate()
    for each in running:
        each.process.join(GRACE_S)
        if each.process.is_alive():
            each.process.kill()
            each.process.join()
