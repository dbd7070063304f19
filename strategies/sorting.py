"""Sorts the sites' values of every coordinate at once, by a fixed network of minima and maxima.

A network compares whole rows, so it runs at the speed of memory where a sort along the short axis does not.
Batcher's odd-even merge sort (1968): about K log(K)^2 / 4 comparisons of rows for K sites.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def network(rows: int) -> tuple[tuple[int, int], ...]:
    """The pairs of rows to compare, in order; the lower row gets the minimum."""
    pairs: list[tuple[int, int]] = []
    block = 1
    while block < rows:
        step = block
        while step >= 1:
            for first in range(step % block, rows - step, 2 * step):
                for place in range(first, min(first + step, rows - step)):
                    if place // (2 * block) == (place + step) // (2 * block):
                        pairs.append((place, place + step))
            step //= 2
        block *= 2
    return tuple(pairs)


def sort_sites(stack: np.ndarray) -> np.ndarray:
    """Sort float32 [sites, values] along the sites, in place; returns the same array."""
    low = np.empty(stack.shape[1], dtype=stack.dtype)
    for first, second in network(stack.shape[0]):
        np.minimum(stack[first], stack[second], out=low)
        np.maximum(stack[first], stack[second], out=stack[second])
        stack[first] = low
    return stack


def middle(ordered: np.ndarray) -> np.ndarray:
    """Median of sorted [sites, values], float64; of an even number the mean of the two in the middle."""
    count = ordered.shape[0]
    upper = ordered[count // 2].astype(np.float64)
    return upper if count % 2 else 0.5 * (upper + ordered[count // 2 - 1])
