"""Squared distances between the sites' modules, and who lies closest to the others (Krum's score).

Distances come from a Gram matrix of the replies around their mean, added up tile by tile in float64, so the
modules are read once and never held.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.strategy import StoredModule, stacks


def squared_distances(replies: Sequence[StoredModule]) -> np.ndarray:
    """Squared L2 distances of all pairs, float64 [sites, sites], zero on the diagonal."""
    count = len(replies)
    gram = np.zeros((count, count))
    for stack in stacks(replies):
        centred = stack.astype(np.float64)
        centred -= centred.mean(axis=0)
        gram += centred @ centred.T
    squares = np.diag(gram)
    found = np.maximum(squares[:, None] + squares[None, :] - gram - gram.T, 0.0)
    np.fill_diagonal(found, 0.0)
    return found


def krum_scores(distances: np.ndarray, *, attackers: int) -> np.ndarray:
    """Sum of each site's squared distances to its n - f - 2 nearest others (Blanchard et al. 2017).

    Args:
        distances: squared, [sites, sites].
        attackers: f; where n - f - 2 is less than 1, one neighbour counts.
    """
    count = distances.shape[0]
    nearest = max(1, count - attackers - 2)
    others = distances + np.diag(np.full(count, np.inf))
    return np.sort(others, axis=1)[:, : min(nearest, count - 1)].sum(axis=1)


def nearest_to_others(scores: np.ndarray, select: int) -> list[int]:
    """Places of the lowest scores, in rising order of place; of equal scores the first sites."""
    return sorted(int(place) for place in np.argsort(scores, kind="stable")[:select])
