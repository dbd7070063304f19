"""Patient-clustered bootstrap by sums (SCIENCE section 7).

Each site draws its own people with replacement and sends the replicates' sums; adding them over sites gives
the replicates of the pooled statistic (stratified by site). All recordings of a person stay together.

Legend: Q patients, M replicates, R rows, K columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

CHUNK_VALUES = 4_000_000


def replicate_weights(patients: int, *, replicates: int, seed: int, site: str) -> Iterator[np.ndarray]:
    """How often each person was drawn, a block of replicates at a time.

    Args:
        patients: Q, at least 1.
        replicates: M in total.
        seed: shared by the sites.
        site: makes the draws of the sites independent; with a secret of the site in it, unknown to others.

    Yields:
        float64 ``[some replicates, Q]``; each row sums to Q. The draws do not depend on the block's size.
    """
    entropy = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")
    generator = np.random.default_rng([seed, entropy])
    even = np.full(patients, 1.0 / patients)
    block = max(1, CHUNK_VALUES // patients)
    for begin in range(0, replicates, block):
        size = min(block, replicates - begin)
        yield generator.multinomial(patients, even, size=size).astype(np.float64)


def bootstrap_sums(
    terms: Mapping[str, np.ndarray], patient_R: np.ndarray, *, replicates: int, seed: int, site: str
) -> dict[str, np.ndarray]:
    """Sums of each replicate.

    Args:
        terms: name to float64 ``[R, K]``, what each row adds.
        patient_R: int [R], the person of each row.
        replicates: M.
        seed: shared by the sites.
        site: name of the site.

    Returns:
        Name to float64 ``[M, K]``; zeros without rows.
    """
    widths = {name: value.shape[1] for name, value in terms.items()}
    found = {name: np.zeros((replicates, width)) for name, width in widths.items()}
    people, inverse = np.unique(patient_R, return_inverse=True)
    if not len(people):
        return found
    stacked = np.concatenate([np.asarray(terms[name], dtype=np.float64) for name in widths], axis=1)
    per_patient = np.zeros((len(people), stacked.shape[1]))
    np.add.at(per_patient, inverse, stacked)
    edges = np.cumsum([0, *widths.values()])
    begin = 0
    for weights in replicate_weights(len(people), replicates=replicates, seed=seed, site=site):
        drawn = weights @ per_patient
        for place, name in enumerate(widths):
            found[name][begin : begin + len(drawn)] = drawn[:, edges[place] : edges[place + 1]]
        begin += len(drawn)
    return found


def percentile_interval(values_M: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of replicates; undefined (NaN) replicates are left out, (nan, nan) if all are."""
    defined = values_M[np.isfinite(values_M)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return float(low), float(high)
