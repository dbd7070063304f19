"""The weighted mean of stored replies in one pass over their files (step 12 of the walk).

Comes in: replies on disk and their weights. Goes out: the float32 mean in a file, or float64 tiles of it.
Each value is ``((0 + n_1 x_1) + n_2 x_2 + ...) / sum n`` in float64, every product, sum and quotient rounded,
in the order of the sites: its bits do not depend on tiles or threads. Pieces are small enough for a core's
cache, so the replies pass the memory once. It does not check values: the round store did.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np

from cardionets_core.errors import CheckpointError
from strategies.strategy import StoredModule

PIECE_VALUES = 1 << 16
"""Small enough for the caches, large enough that Python between two pieces is not felt."""
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
    local = threading.local()
    with contextlib.ExitStack() as opened, target.open("wb", buffering=0) as goal:
        sources = [opened.enter_context(reply.path.open("rb", buffering=0)).fileno() for reply in replies]
        reading = [
            (reply, float(reply.samples), source) for reply, source in zip(replies, sources, strict=True)
        ]

        def piece(start: int) -> None:
            count = min(PIECE_VALUES, size - start)
            if getattr(local, "count", 0) != count:
                local.count, local.values = count, np.empty(count, dtype="<f4")
                local.sums = np.empty(count, dtype=np.float64)
                local.view = memoryview(local.values.data).cast("B")
            sums, values, view = local.sums, local.values, local.view
            add = _first
            for reply, weight, source in reading:
                if os.preadv(source, [view], 4 * start) != len(view):
                    _read_on(view, source, 4 * start, reply)
                add(sums, weight, values)
                add = _add
            _divide(sums, total, values)
            _write(view, goal.fileno(), 4 * start)

        with ThreadPoolExecutor(max_workers=_threads()) as pool:
            for _ in pool.map(piece, range(0, size, PIECE_VALUES)):
                pass
        os.fsync(goal.fileno())


def mean_of(arrays: Sequence[np.ndarray], samples: Sequence[int]) -> np.ndarray:
    """The float64 mean of float32 arrays of one size, weighted by samples."""
    sums = np.zeros(arrays[0].size, dtype=np.float64)
    for values, count in zip(arrays, samples, strict=True):
        _add(sums, float(count), values)
    _divide(sums, float(sum(samples)), sums)
    return sums


def _read_on(view: memoryview, source: int, start: int, reply: StoredModule) -> None:
    """Read a piece of which the machine gave a part only."""
    done = 0
    while done < len(view):
        got = os.preadv(source, [view[done:]], start + done)
        if not got:
            raise CheckpointError(
                f"the stored reply of {reply.site} is shorter than it was",
                where=str(reply.path),
                remedy="resume the study: the round is asked again",
            )
        done += got


def _write(view: memoryview, goal: int, start: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(goal, view[done:], start + done)


def _threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _first(sums: np.ndarray, weight: float, values: np.ndarray) -> None:
    for i in range(sums.size):
        sums[i] = 0.0 + weight * np.float64(values[i])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _add(sums: np.ndarray, weight: float, values: np.ndarray) -> None:
    for i in range(sums.size):
        sums[i] += weight * np.float64(values[i])


@numba.njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _divide(sums: np.ndarray, total: float, means: np.ndarray) -> None:
    for i in range(sums.size):
        means[i] = sums[i] / total
