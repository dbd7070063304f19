"""Retrieval between ECG and cine embeddings, both ways, at the full gallery and at one of 256.

A gallery holds one pair of each person. The rank of a query counts the entries that score at least as high as
its own one: ties count against the model, so a collapsed model gains nothing. Retrieval is inside a site, for
embeddings of people do not leave it; a recall therefore depends on the size of the site's gallery, which is
reported beside it together with the recall of chance. The gallery of 256 makes sites comparable.

Legend: R rows, G entries of the gallery, E width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FIXED_GALLERY = 256
DIRECTIONS: tuple[str, ...] = ("ecg_to_cmr", "cmr_to_ecg")
GALLERIES: tuple[str, ...] = ("full", "fixed")
RECALLS: tuple[int, ...] = (1, 5, 10)
# Ranks from 0: each of the first 256 has a bin of its own, then 8 bins an octave up to 2^20.
RANK_EDGES = np.unique(
    np.concatenate([np.arange(256), np.round(2.0 ** np.arange(8, 20, 1 / 8))]).astype(np.int64)
)
RANK_BINS = len(RANK_EDGES)
# Cosines of equal embeddings may differ by rounding; they are ties all the same.
TIE = 1e-9
CHUNK_VALUES = 4_000_000


def draw_gallery(patient_R: np.ndarray, *, seed: int) -> np.ndarray:
    """One row of each person, in an order drawn from the seed: int64 [G]."""
    order = np.random.default_rng(seed).permutation(len(patient_R))
    _, first = np.unique(np.asarray(patient_R)[order], return_index=True)
    return order[np.sort(first)]


def ranks(query_GE: np.ndarray, entry_GE: np.ndarray) -> np.ndarray:
    """How many other entries have at least the cosine of the query's own, the one of its index. [G]."""
    query, entry = _unit(query_GE), _unit(entry_GE)
    found_G = np.zeros(len(query), dtype=np.int64)
    block = max(1, CHUNK_VALUES // max(1, len(entry)))
    for begin in range(0, len(query), block):
        score = query[begin : begin + block] @ entry.T
        own = score[np.arange(len(score)), begin + np.arange(len(score))]
        found_G[begin : begin + block] = (score >= own[:, None] - TIE).sum(axis=1) - 1
    return found_G


def retrieval_sums(
    ecg_RE: np.ndarray, cmr_RE: np.ndarray, *, patient_R: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """What a site reports.

    Args:
        ecg_RE: ECG embeddings in the common space, not normalised; row i belongs to row i of ``cmr_RE``.
        cmr_RE: cine embeddings.
        patient_R: int [R], the person of each row.
        seed: draws the row of each person, and the people of the smaller gallery.

    Returns:
        For each direction and gallery ``ecg_to_cmr/full`` [RANK_BINS], the number of queries in each bin of
        ``RANK_EDGES``, and ``ecg_to_cmr/full/fraction`` [1], the sum of ``rank / (G - 1)``; for each gallery
        ``full/queries`` [1] (= G), ``full/entries`` [1], G summed over the queries, and ``full/galleries``
        [1], 1 where there are rows.
    """
    chosen = draw_gallery(patient_R, seed=seed)
    found: dict[str, np.ndarray] = {}
    for gallery in GALLERIES:
        rows = chosen if gallery == "full" else chosen[:FIXED_GALLERY]
        count = float(len(rows))
        found[f"{gallery}/queries"] = np.array([count])
        found[f"{gallery}/entries"] = np.array([count**2])
        found[f"{gallery}/galleries"] = np.array([float(count > 0)])
        for direction in DIRECTIONS:
            query, entry = (ecg_RE, cmr_RE) if direction == "ecg_to_cmr" else (cmr_RE, ecg_RE)
            rank_G = ranks(query[rows], entry[rows])
            place_G = np.searchsorted(RANK_EDGES, rank_G, side="right") - 1
            counts = np.bincount(place_G, minlength=RANK_BINS).astype(np.float64)
            found[f"{direction}/{gallery}"] = counts
            found[f"{direction}/{gallery}/fraction"] = np.array([rank_G.sum() / max(count - 1.0, 1.0)])
    return found


def retrieval_metrics(sums: Mapping[str, np.ndarray], *, direction: str, gallery: str) -> dict[str, float]:
    """Metrics of one direction and gallery, from sums of one or several sites; empty without queries.

    ``recall@1``, ``@5``, ``@10`` and ``chance@...``, what ranks at random give; ``median_rank`` from 1 (exact
    up to 256, above it the first rank of its bin, at most 9 % low); ``mean_rank_fraction`` (0 best, 0.5
    chance); ``queries``; ``gallery``, the mean number of entries that a query saw.
    """
    queries = float(sums[f"{gallery}/queries"][0])
    if queries <= 0:
        return {}
    reached = np.cumsum(sums[f"{direction}/{gallery}"])
    entries = float(sums[f"{gallery}/entries"][0]) / queries
    found = {"queries": queries, "gallery": entries}
    for k in RECALLS:
        found[f"recall@{k}"] = float(reached[k - 1] / queries)
        # Each of a site's G queries reaches rank k with probability k / G: k a gallery.
        found[f"chance@{k}"] = min(1.0, k * float(sums[f"{gallery}/galleries"][0]) / queries)
    found["median_rank"] = float(RANK_EDGES[int(np.searchsorted(reached, queries / 2.0))] + 1)
    found["mean_rank_fraction"] = float(sums[f"{direction}/{gallery}/fraction"][0]) / queries
    return found


def _unit(values_GE: np.ndarray) -> np.ndarray:
    values = np.asarray(values_GE, dtype=np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)
