"""The inner loops that numpy has no word for, compiled by numba; the only door to it.

Used at step 2 of the walk (the filter) and between steps 4 and 5 (the windows of a batch). Comes in: arrays
whose shapes the callers have checked, since compiled code checks no bounds. Goes out: arrays. Nothing here
knows what an ECG is.

No fast-math: every result is the same whatever the vector width of the processor, and nothing here starts a
thread. Compiled code is kept beside this file or, where that cannot be written, in the user's cache folder,
so that a worker process loads it in a fraction of a second; with neither, each process compiles anew. Import
this module inside functions: numba is heavy.

Legend: L leads, T samples, B windows, K filters, S second-order sections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit

LANES = 16
"""Leads that are filtered side by side: two vectors of AVX-512, four of AVX2; twelve leads waste four
lanes."""

_Kernel = TypeVar("_Kernel", bound=Callable[..., None])


def _compiled(function: _Kernel) -> _Kernel:
    try:
        return cast(_Kernel, njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba finds no folder that it may write its cache to
        return cast(_Kernel, njit(nogil=True)(function))


@_compiled
def filter_both_ways(
    signal: np.ndarray, sections: np.ndarray, rest: np.ndarray, edge: int, filtered: np.ndarray
) -> None:
    """Zero-phase filters one after another, as ``scipy.signal.sosfiltfilt`` with its default padding.

    Each goes forwards, then backwards, over the odd extension of what came before it, from the state of rest
    for the first sample.

    Args:
        signal: float64 [L, T], T over ``edge``.
        sections: float64 [K, 3, 6], each of three sections.
        rest: float64 [K, 3, 2], ``scipy.signal.sosfilt_zi`` of each.
        edge: samples of the extension on each side.
        filtered: float64 [L, T], written.
    """
    leads, samples = signal.shape
    padded = samples + 2 * edge
    work = np.zeros((padded, LANES))
    state = np.empty((3, 2, LANES))
    for base in range(0, leads, LANES):
        lanes = min(LANES, leads - base)
        for lane in range(lanes):
            for t in range(samples):
                work[edge + t, lane] = signal[base + lane, t]
        for k in range(sections.shape[0]):
            for lane in range(lanes):
                first, last = work[edge, lane], work[edge + samples - 1, lane]
                for t in range(edge):
                    work[t, lane] = 2 * first - work[2 * edge - t, lane]
                    work[padded - 1 - t, lane] = 2 * last - work[padded - 1 - 2 * edge + t, lane]
            _filter_one_way(work, sections[k], rest[k], state, 0, 1)
            _filter_one_way(work, sections[k], rest[k], state, padded - 1, -1)
        for lane in range(lanes):
            for t in range(samples):
                filtered[base + lane, t] = work[edge + t, lane]


@_compiled
def _filter_one_way(
    work: np.ndarray, sections: np.ndarray, rest: np.ndarray, state: np.ndarray, first: int, step: int
) -> None:
    """Three sections over [T, LANES] in place, from row ``first`` on in steps of 1 or -1 (direct form II,
    transposed).

    The sections are spelt out: with all three in one loop over the lanes it becomes vector code.
    """
    b00, b01, b02, a01, a02 = sections[0, 0], sections[0, 1], sections[0, 2], sections[0, 4], sections[0, 5]
    b10, b11, b12, a11, a12 = sections[1, 0], sections[1, 1], sections[1, 2], sections[1, 4], sections[1, 5]
    b20, b21, b22, a21, a22 = sections[2, 0], sections[2, 1], sections[2, 2], sections[2, 4], sections[2, 5]
    for section in range(3):
        for lane in range(LANES):
            state[section, 0, lane] = rest[section, 0] * work[first, lane]
            state[section, 1, lane] = rest[section, 1] * work[first, lane]
    t = first
    for _ in range(work.shape[0]):
        for lane in range(LANES):
            u = work[t, lane]
            v = b00 * u + state[0, 0, lane]
            state[0, 0, lane] = b01 * u - a01 * v + state[0, 1, lane]
            state[0, 1, lane] = b02 * u - a02 * v
            w = b10 * v + state[1, 0, lane]
            state[1, 0, lane] = b11 * v - a11 * w + state[1, 1, lane]
            state[1, 1, lane] = b12 * v - a12 * w
            y = b20 * w + state[2, 0, lane]
            state[2, 0, lane] = b21 * w - a21 * y + state[2, 1, lane]
            state[2, 1, lane] = b22 * w - a22 * y
            work[t, lane] = y
        t += step


@_compiled
def standardise_windows(
    counts: np.ndarray, begins: np.ndarray, totals: np.ndarray, starts: np.ndarray, windows: np.ndarray
) -> None:
    """Windows of packed recordings, each of zero mean and unit SD; a constant one becomes zeros.

    Sums are exact integers, so neither mean nor SD depends on the order of summation.

    Args:
        counts: int16, flat.
        begins: int64 [B], where each recording begins in ``counts``.
        totals: int64 [B], samples a lead.
        starts: int64 [B], first sample of each window.
        windows: float32 [B, L, T], written.
    """
    leads, length = windows.shape[1], windows.shape[2]
    size = leads * length
    for b in range(windows.shape[0]):
        total = np.int64(0)
        squares = np.int64(0)
        for lead in range(leads):
            place = begins[b] + lead * totals[b] + starts[b]
            row = counts[place : place + length]
            for t in range(length):
                value = np.int64(row[t])
                total += value
                squares += value * value
        mean = total / size
        centre = np.int64(np.rint(mean))
        # About the nearest integer: exact, and no large squares are left to cancel.
        about = squares - 2 * centre * total + size * centre * centre
        offset = (total - size * centre) / size
        variance = about / size - offset * offset
        if about == 0 or variance <= 0.0:
            windows[b] = 0.0
            continue
        shift, scale = np.float32(mean), np.float32(1.0 / np.sqrt(variance))
        for lead in range(leads):
            place = begins[b] + lead * totals[b] + starts[b]
            row = counts[place : place + length]
            target = windows[b, lead]
            for t in range(length):
                target[t] = (np.float32(row[t]) - shift) * scale
