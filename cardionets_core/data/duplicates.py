"""Near-duplicate recordings under different people (FORMATS section 7, check 8).

The same recording may come in two formats, at two rates, or under two identifiers; standing in two splits it
leaks. After step 4 of the walk. Comes in: packed recordings. Goes out: a short signature of each, and the
pairs that are alike. Nothing is removed: which of two is right only the site can tell.

A signature holds what a shift in time, noise and rounding leave alone: how the eight independent leads go
together, and the rhythm of the beats. Near signatures only make a candidate; a pair is one recording where
the signals themselves agree, moved against each other by up to two seconds.

Legend: N recordings, L leads, T samples, S numbers of a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.spatial import cKDTree

from cardionets_core.data.records import LEADS

RADIUS = 0.05
"""Distance of signatures that makes a candidate. Copies (100 against 500 Hz, cropped by 0.2 s, with 5 uV of
noise, rewritten at 5 uV a count) lie under 0.035; of 430,000 pairs of different open and simulated
recordings, none lies under 0.06."""
ALIKE_CORRELATION = 0.92
ALIKE_MEDIAN_CORRELATION = 0.9
"""Of one recording: over four leads together, and the median over all. Copies give at least 0.968 and 0.962;
different recordings, the simulated ones included, at most 0.81 and 0.82."""
MAXIMUM_SHIFT = 500
"""Samples, 2 s: beyond a beat, so that regular traces of one simulator meet."""
NEIGHBOURS = 64
"""Looked at for a recording, nearest first: bounds the work where a whole site looks alike."""

_INDEPENDENT = [LEADS.index(name) for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]
_COMPARED = [LEADS.index(name) for name in ("II", "V1", "V2", "V5")]
_PAIRS = np.triu_indices(len(_INDEPENDENT))
_PAIR_WEIGHTS = np.where(_PAIRS[0] == _PAIRS[1], 1.0, np.sqrt(2.0)).astype(np.float32)
_EDGE = 100
"""Samples left out at either end: there the filter rings, and a crop changes most."""
_RHYTHM_BINS, _RHYTHM_BIN, _RHYTHM_FROM, _RHYTHM_WEIGHT = 16, 10, 38, 0.15
"""The rhythm: lags from 0.3 to 1.58 s in bins of 80 ms, at 125 Hz."""
SIGNATURE_LENGTH = len(_PAIRS[0]) + _RHYTHM_BINS
_AXES = 12
"""In which near signatures are looked for: those of most variance hold 95 % of it, and a tree of all numbers
is slow. A distance can only shrink in them, so nothing near is missed."""
_SAMPLE, _CHUNK = 20_000, 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Duplicates:
    """Recordings that stand under more than one person.

    Attributes:
        pairs: int64 [P, 2], places in the signatures, the lower first; ascending.
        patients: how many people own a recording of these pairs.
        across_splits: how many of the pairs stand in two splits: these leak.
    """

    pairs: np.ndarray
    patients: int
    across_splits: int


def ecg_signature(counts_LT: np.ndarray) -> np.ndarray:
    """Float32 [SIGNATURE_LENGTH] of int16 [12, T] at 250 Hz: near for copies of one recording.

    The covariance of the eight independent leads over its trace, so that the gain does not count, and the
    autocorrelation of the speed of the signal. All zeros where the recording is. T is at least 1,250.
    """
    signal = counts_LT[_INDEPENDENT, _EDGE : counts_LT.shape[1] - _EDGE].astype(np.float32)
    signature = np.zeros(SIGNATURE_LENGTH, dtype=np.float32)
    signal -= signal.mean(axis=1, keepdims=True)
    products = np.einsum("it,jt->ij", signal, signal)
    power = float(np.trace(products))
    if power <= 0.0:
        return signature
    signature[: len(_PAIRS[0])] = products[_PAIRS] * _PAIR_WEIGHTS / power
    speed = np.diff(signal[:, ::2], axis=1)
    beats = np.sqrt(np.einsum("it,it->t", speed, speed))
    beats = beats[:-4] + beats[1:-3] + beats[2:-2] + beats[3:-1] + beats[4:]
    beats -= beats.mean()
    last = _RHYTHM_FROM + _RHYTHM_BINS * _RHYTHM_BIN
    size = next_fast_len(len(beats) + last, real=True)
    spectrum = rfft(beats, size)
    lagged = irfft(np.square(spectrum.real) + np.square(spectrum.imag), size)
    if lagged[0] > 0.0:
        rhythm = lagged[_RHYTHM_FROM:last].reshape(_RHYTHM_BINS, _RHYTHM_BIN).mean(axis=1)
        signature[len(_PAIRS[0]) :] = _RHYTHM_WEIGHT * rhythm / lagged[0]
    return signature


def find_duplicates(
    signatures: np.ndarray,
    patients: np.ndarray,
    read_counts: Callable[[int], np.ndarray],
    *,
    splits: np.ndarray,
) -> Duplicates:
    """The pairs of recordings of different people that are one recording.

    Args:
        signatures: float32 [N, S].
        patients: int [N], a number for each person.
        read_counts: a place to its int16 [12, T]; asked for candidates only.
        splits: int [N].
    """
    found = [
        (first, second)
        for first, second in _candidates(np.asarray(signatures), np.asarray(patients))
        if are_alike(read_counts(first), read_counts(second))
    ]
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return Duplicates(
        pairs=pairs,
        patients=len(np.unique(np.asarray(patients)[pairs])),
        across_splits=int(
            np.count_nonzero(np.asarray(splits)[pairs[:, 0]] != np.asarray(splits)[pairs[:, 1]])
        ),
    )


def _candidates(signatures: np.ndarray, patients: np.ndarray) -> Iterator[tuple[int, int]]:
    """Each pair of different people with near signatures, once, the lower place first."""
    told = np.flatnonzero(np.isfinite(signatures).all(axis=1) & signatures.any(axis=1))
    if len(told) < 2:
        return
    known = signatures[told]
    _, axes = np.linalg.eigh(np.cov(known[:: max(1, len(told) // _SAMPLE)].T))
    points = (known @ axes[:, -_AXES:].astype(np.float32)).astype(np.float64)
    tree = cKDTree(points)
    seen: set[tuple[int, int]] = set()
    for start in range(0, len(told), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        _, places = tree.query(
            points[chunk], k=min(NEIGHBOURS + 1, len(told)), distance_upper_bound=1.01 * RADIUS
        )
        rows, columns = np.nonzero(places < len(told))
        ones, others = rows + start, places[rows, columns]
        far = patients[told[ones]] != patients[told[others]]
        ones, others = ones[far], others[far]
        near = np.linalg.norm(known[ones] - known[others], axis=1) < RADIUS
        for one, other in zip(told[ones[near]].tolist(), told[others[near]].tolist(), strict=True):
            pair = (min(one, other), max(one, other))
            if pair not in seen:
                seen.add(pair)
                yield pair


def are_alike(first_LT: np.ndarray, second_LT: np.ndarray) -> bool:
    """Whether two recordings, int16 [12, T] at 250 Hz, are one, moved by ``MAXIMUM_SHIFT`` at most.

    The shift is that of the greatest correlation of four leads together; gain does not count.
    """
    first, second = first_LT[_COMPARED].astype(np.float64), second_LT[_COMPARED].astype(np.float64)
    length, other = first.shape[1], second.shape[1]
    reach = min(MAXIMUM_SHIFT, length // 2, other // 2)
    size = next_fast_len(length + other, real=True)
    products = irfft((rfft(first, size) * rfft(second, size).conj()).sum(axis=0), size)
    shifts = np.arange(-reach, reach + 1)
    begin, end = np.maximum(0, shifts), np.minimum(length, other + shifts)
    power = _power_between(first, begin, end) * _power_between(second, begin - shifts, end - shifts)
    correlation = np.divide(products[shifts], np.sqrt(power), out=np.zeros(len(shifts)), where=power > 0)
    best = int(np.argmax(correlation))
    if correlation[best] < ALIKE_CORRELATION:
        return False
    start, stop, shift = int(begin[best]), int(end[best]), int(shifts[best])
    of_first = first_LT[_INDEPENDENT, start:stop].astype(np.float64)
    of_second = second_LT[_INDEPENDENT, start - shift : stop - shift].astype(np.float64)
    power = np.einsum("lt,lt->l", of_first, of_first) * np.einsum("lt,lt->l", of_second, of_second)
    told = power > 0
    each = np.einsum("lt,lt->l", of_first, of_second)[told] / np.sqrt(power[told])
    return bool(np.median(each) >= ALIKE_MEDIAN_CORRELATION)


def _power_between(signal: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Sum of squares over leads from each begin to its end."""
    running = np.concatenate([[0.0], np.cumsum(np.einsum("lt,lt->t", signal, signal))])
    return running[end] - running[begin]
