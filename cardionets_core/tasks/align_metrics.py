"""What a site reports of the aligned embeddings: retrieval both ways, cosine of pairs, value of the loss.

Names without a prefix are of ECG to cine at the fixed gallery of 256; ``full/`` marks the site's whole
gallery, ``cmr_to_ecg/`` the other direction.

Legend: R rows, one a patient; E width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardionets_core.evaluation.retrieval import (
    DIRECTIONS,
    FIXED_GALLERY,
    GALLERIES,
    retrieval_metrics,
    retrieval_sums,
)
from cardionets_core.privacy.counts import DIVISOR, INNER, Counts
from cardionets_core.tasks.base import Sums, one

PREFIXES = {"ecg_to_cmr": "", "cmr_to_ecg": "cmr_to_ecg/", "fixed": "", "full": "full/"}

ALIGNMENT_COUNTS: Counts = {
    **{f"{gallery}/queries": DIVISOR for gallery in GALLERIES},
    **{f"{gallery}/entries": INNER for gallery in GALLERIES},
    **{f"{direction}/{gallery}": INNER for direction in DIRECTIONS for gallery in GALLERIES},
    "loss_rows": DIVISOR,
}
"""Which of ``alignment_sums`` are counts; ranks divide the queries."""


def alignment_sums(
    ecg_RE: np.ndarray, cmr_RE: np.ndarray, *, patient_R: np.ndarray, seed: int, loss: float
) -> Sums:
    """Sums of a site; R = 0 is legal.

    Args:
        ecg_RE: not normalised; row i belongs to row i of ``cmr_RE``.
        cmr_RE: likewise.
        patient_R: each person once.
        seed: draws the people of the smaller gallery.
        loss: mean over the first 256 rows.

    Returns:
        As ``retrieval_sums``, and ``cosine``, ``loss``, ``loss_rows``, each (1,).
    """
    lengths_R = np.linalg.norm(ecg_RE, axis=1) * np.linalg.norm(cmr_RE, axis=1)
    cosine_R = (ecg_RE * cmr_RE).sum(axis=1) / np.where(lengths_R > 0.0, lengths_R, 1.0)
    counted = min(len(ecg_RE), FIXED_GALLERY)
    return {
        **retrieval_sums(ecg_RE, cmr_RE, patient_R=patient_R, seed=seed),
        "cosine": one(float(cosine_R.sum())),
        "loss": one(loss * counted),
        "loss_rows": one(counted),
    }


def alignment_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of (added) ``alignment_sums`` with ``n_rows`` and ``n_patients``.

    For each direction and gallery what ``retrieval_metrics`` gives; ``cosine`` over all rows; ``loss``, the
    mean over sites of the loss within a batch of at most 256 of their rows.
    """
    rows = float(sums["n_rows"][0])
    found = {"n_rows": rows, "n_patients": float(sums["n_patients"][0])}
    if rows <= 0:
        return found
    for direction in DIRECTIONS:
        for gallery in GALLERIES:
            prefix = PREFIXES[direction] + PREFIXES[gallery]
            for name, value in retrieval_metrics(sums, direction=direction, gallery=gallery).items():
                found[prefix + name] = value
    found["cosine"] = float(sums["cosine"][0]) / rows
    found["loss"] = float(sums["loss"][0]) / float(sums["loss_rows"][0])
    return found
