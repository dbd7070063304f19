"""Weighted sums of stored replies in one pass over their files (step 12 of the walk).

Comes in: replies on disk and one number a site. Goes out: the float32 result in a file, or float64 tiles of a
mean. Each value is ``((0 + n_1 x_1) + n_2 x_2 + ...) / total`` in float64, every product, sum and quotient
rounded, in the order of the sites: its bits do not depend on tiles or threads. Pieces fit into the caches, so
the replies pass the memory once. It does not check values: the round store did.
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

PIECE_VALUES = 1 << 17
"""Small enough for the caches, large enough that Python between two pieces is not felt."""
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
    local = threading.local()
    with contextlib.ExitStack() as opened, target.open("wb", buffering=0) as goal:
        reading = [
            (factor, path, opened.enter_context(path.open("rb", buffering=0)).fileno())
            for factor, path in parts
        ]

        def piece(start: int) -> None:
            count = min(PIECE_VALUES, size - start)
            if getattr(local, "count", 0) != count:
                local.count, local.values = count, np.empty(count, dtype="<f4")
                local.sums = np.empty(count, dtype=np.float64)
                local.view = memoryview(local.values.data).cast("B")
            sums, values, view = local.sums, local.values, local.view
            add = _first
            for factor, path, source in reading:
                if os.preadv(source, [view], 4 * start) != len(view):
                    _read_on(view, source, 4 * start, path)
                add(sums, factor, values)
                add = _add
            _divide(sums, float(total), values)
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


def _read_on(view: memoryview, source: int, start: int, path: Path) -> None:
    """Read a piece of which the machine gave a part only."""
    done = 0
    while done < len(view):
        got = os.preadv(source, [view[done:]], start + done)
        if not got:
            raise CheckpointError(
                f"the stored file {path.name} is shorter than it was",
                where=str(path),
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
