"""Weighted sums of stored replies in one pass over their files (step 12 of the walk).

Comes in: replies on disk and one number a site. Goes out: the float32 result in a file, or float64 tiles of a
mean. Each value is ``((0 + n_1 x_1) + n_2 x_2 + ...) / total`` in float64, every product, sum and quotient
rounded, in the order of the sites: its bits do not depend on tiles or threads. Pieces are small enough for a
core's cache, so the replies pass the memory once. It does not check values: the round store did.
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
    """Write the sample-weighted mean of all replies; see ``write_sum``."""
    samples = [reply.samples for reply in replies]
    write_sum(replies, samples, total=sum(samples), target=target)


def write_sum(
    replies: Sequence[StoredModule],
    factors: Sequence[float],
    *,
    total: float,
    target: Path,
    current: Path | None = None,
    rest: float = 0.0,
) -> None:
    """target <- (rest * current + sum_k factors_k * reply_k) / total, raw little-endian float32.

    With whole factors and products that are exact in float64, one reply, or equal replies, come back with
    their very bytes. The disk has the file on return.

    Args:
        replies: at least one, all of one size.
        factors: one a reply.
        total: what the sum is divided by.
        target: the file.
        current: the module that was sent out; of the replies' size.
        rest: how much of it goes in.

    Raises:
        CheckpointError: a file is shorter than it was when it was stored.
    """
    size = replies[0].size
    parts = [(float(factor), reply.path) for factor, reply in zip(factors, replies, strict=True)]
    if current is not None and rest != 0.0:
        parts.insert(0, (float(rest), current))
    sources = [os.open(path, os.O_RDONLY) for _, path in parts]
    goal = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    local = threading.local()

    def piece(start: int) -> None:
        if not hasattr(local, "sums"):
            local.sums = np.empty(PIECE_VALUES, dtype=np.float64)
            local.values = np.empty(PIECE_VALUES, dtype="<f4")
        count = min(PIECE_VALUES, size - start)
        sums, values = local.sums[:count], local.values[:count]
        sums[:] = 0.0
        for (factor, path), source in zip(parts, sources, strict=True):
            _fill(values, source, start, path)
            _add(sums, factor, values)
        _divide(sums, float(total), values)
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


def _fill(values: np.ndarray, source: int, start: int, path: Path) -> None:
    view, place = memoryview(values.data).cast("B"), 4 * start
    while view:
        got = os.preadv(source, [view], place)
        if not got:
            raise CheckpointError(
                f"the stored file {path.name} is shorter than it was",
                where=str(path),
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
