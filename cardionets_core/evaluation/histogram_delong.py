"""DeLong's variance of an AUROC from class-wise score histograms, for sums that may be added over sites.

Scores inside a bin count as tied, so it equals DeLong's estimate on scores rounded to their bins. Rows count
as independent: where people have several, the patient-clustered bootstrap is the wider and the better one.

Legend: K columns (diseases), b bins.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def auroc_variance(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``S10 / n+ + S01 / n-`` of the binned structural components (DeLong et al. 1988). [..., K].

    Args:
        sums: ``positive`` and ``negative``, [..., K, b].

    Returns:
        NaN with fewer than two rows of either class.
    """
    positive, negative = sums["positive"], sums["negative"]
    ill, well = positive.sum(axis=-1, keepdims=True), negative.sum(axis=-1, keepdims=True)
    # Share of the negatives that a positive of each bin beats, and of the positives that beat a negative.
    beaten = _divide(np.cumsum(negative, axis=-1) - negative / 2.0, well)
    beating = 1.0 - _divide(np.cumsum(positive, axis=-1) - positive / 2.0, ill)
    return _variance(positive, beaten) + _variance(negative, beating)


def _variance(count: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Variance of the mean of ``part`` over the rows that ``count`` holds."""
    rows = count.sum(axis=-1)
    mean = _divide((count * part).sum(axis=-1), rows)
    squares = (count * (part - mean[..., None]) ** 2).sum(axis=-1)
    return _divide(squares, rows * np.maximum(rows - 1.0, 0.0))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
