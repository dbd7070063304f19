"""The weighted mean of stored replies in one pass over their files (step 12 of the walk).

Comes in: replies on disk and their weights. Goes out: the float32 mean in a file, or float64 tiles of it.
Each value is ``((0 + n_1 x_1) + n_2 x_2 + ...) / sum n`` in float64, every product, sum and quotient rounded,
in the order of the sites: its bits do not depend on tiles or threads. Pieces are small enough for a core's
cache, so the replies pass the memory once. It does not check values: the round store did.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np

from cardionets_core.errors import CheckpointError
from strategies.strategy import StoredModule

PIECE_VALUES = 1 << 15
"""Its sums and one reply's values fit a core's second cache of half a megabyte."""
MOST_THREADS = 8


def write_weighted_mean(replies: Sequence[StoredModule], target: Path) -> None:
    """Write the sample-weighted mean of all replies as raw little-endian float32; the disk has it on return.

    Args:
        replies: at least one, all of one size.
        target: the file.

    Raises:
        CheckpointError: a reply's file is shorter than it was when it was stored.
    """
    size, total = replies[0].size, float(sum(reply.samples for reply in replies))
    sources = [os.open(reply.path, os.O_RDONLY) for reply in replies]
    goal = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    local = threading.local()

    def piece(start: int) -> None:
        if not hasattr(local, "sums"):
            local.sums = np.empty(PIECE_VALUES, dtype=np.float64)
            local.values = np.empty(PIECE_VALUES, dtype="<f4")
        count = min(PIECE_VALUES, size - start)
        sums, values = local.sums[:count], local.values[:count]
        sums[:] = 0.0
        for reply, source in zip(replies, sources, strict=True):
            _fill(values, source, start, reply)
            _add(sums, float(reply.samples), values)
        _divide(sums, total, values)
        _put(values, goal, start)

    try:
        with ThreadPoolExecutor(max_workers=_threads()) as pool:
            for _ in pool.map(piece, range(0, size, PIECE_VALUES)):
                pass
        os.fsync(goal)
    finally:
        for descriptor in (*sources, goal):
            os.close(descriptor)


def mean_of(arrays: Sequence[np.ndarray], samples: Sequence[int]) -> np.ndarray:
    """The float64 mean of float32 arrays of one size, weighted by samples."""
    sums = np.zeros(arrays[0].size, dtype=np.float64)
    for values, count in zip(arrays, samples, strict=True):
        _add(sums, float(count), values)
    _divide(sums, float(sum(samples)), sums)
    return sums


def _fill(values: np.ndarray, source: int, start: int, reply: StoredModule) -> None:
    view, place = memoryview(values.data).cast("B"), 4 * start
    while view:
        got = os.preadv(source, [view], place)
        if not got:
            raise CheckpointError(
                f"the stored reply of {reply.site} is shorter than it was",
                where=str(reply.path),
                remedy="resume the study: the round is asked again",
            )
        view, place = view[got:], place + got


def _put(values: np.ndarray, goal: int, start: int) -> None:
    view, place = memoryview(values.data).cast("B"), 4 * start
    while view:
        done = os.pwrite(goal, view, place)
        view, place = view[done:], place + done


def _threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _add(sums: np.ndarray, weight: float, values: np.ndarray) -> None:
    for i in range(sums.size):
        sums[i] += weight * np.float64(values[i])


@numba.njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _divide(sums: np.ndarray, total: float, means: np.ndarray) -> None:
    for i in range(sums.size):
        means[i] = sums[i] / total
