"""The weighted mean of stored replies in one pass over their files (step 12 of the walk).

Comes in: replies on disk and their weights. Goes out: the float32 mean, or float64 tiles of it. Each value is
``((0 + n_1 x_1) + n_2 x_2 + ...) / sum n`` in float64, product and sum rounded one after the other and always
in the order of the sites, so the bits depend on nothing else: not on the tiles, the threads or the machine.
The replies are read in pieces that stay in a core's cache, so their bytes pass the memory once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np

from cardionets_core.errors import CheckpointError
from strategies.strategy import TILE_VALUES, StoredModule

PIECE_VALUES = 1 << 15
MOST_THREADS = 8


@numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _first(sums: np.ndarray, weight: float, values: np.ndarray) -> None:
    for i in range(values.size):
        sums[i] = 0.0 + weight * np.float64(values[i])


@numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _add(sums: np.ndarray, weight: float, values: np.ndarray) -> None:
    for i in range(values.size):
        sums[i] += weight * np.float64(values[i])


@numba.njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _divide(sums: np.ndarray, total: float, means: np.ndarray) -> None:
    for i in range(means.size):
        means[i] = sums[i] / total
