"""What a model of the subtype of cardiomyopathy measures, as sums that may be added over sites.

Legend: R rows, C subtypes, b bins.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import logsumexp

from cardionets_core.data.records import SUBTYPES
from cardionets_core.evaluation.histograms import auroc, score_histograms
from cardionets_core.privacy.counts import HISTOGRAM, INNER, Counts
from cardionets_core.tasks.base import Sums

SUBTYPE_COUNTS: Counts = {
    "subtype_confusion": INNER,
    "subtype_positive": HISTOGRAM,
    "subtype_negative": HISTOGRAM,
}
"""The confusion divides the subtypes, whom the histograms count."""


def subtype_index(label_RC: np.ndarray) -> np.ndarray:
    """Which subtype each row has, int64 [R]; -1 where it is not known. Labels as in the cohort."""
    known_R = ~np.isnan(label_RC).any(axis=1)
    return np.where(known_R, np.nan_to_num(label_RC).argmax(axis=1), -1).astype(np.int64)


def subtype_score_sums(logit_RC: np.ndarray, label_RC: np.ndarray) -> Sums:
    """Sums over the rows with a known subtype; zeros without any.

    The score of a class against the rest is the logit of its probability,
    ``z_c - log sum_{k != c} exp z_k``.

    Args:
        logit_RC: with the log share of each subtype added.
        label_RC: one-hot, NaN where not known.

    Returns:
        ``subtype_confusion`` [C, C], true by predicted; ``subtype_positive``, ``subtype_negative``
        [C, 2048].
    """
    index_R = subtype_index(label_RC)
    known = np.flatnonzero(index_R >= 0)
    logit_RC, index_R = np.asarray(logit_RC, dtype=np.float64)[known], index_R[known]
    classes = len(SUBTYPES)
    one_hot_RC = (index_R[:, None] == np.arange(classes)).astype(np.float64)
    rest = [np.delete(logit_RC, c, axis=1) for c in range(classes)]
    score_RC = logit_RC - np.stack([logsumexp(others, axis=1) for others in rest], axis=1)
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (index_R, logit_RC.argmax(axis=1)), 1.0)
    histograms = score_histograms(score_RC, one_hot_RC)
    return {
        "subtype_confusion": confusion,
        **{f"subtype_{name}": value for name, value in histograms.items()},
    }


def subtype_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Accuracy, AUROC of each class against the rest and their mean (where all are defined), confusion.

    ``subtype_confusion/dcm/hcm`` is the number of rows of DCM that were called HCM.
    """
    confusion = sums["subtype_confusion"]
    total = float(confusion.sum())
    found = {"subtype_n": total}
    if total <= 0:
        return found
    found["subtype_accuracy"] = float(np.trace(confusion) / total)
    area_C = auroc({name: sums[f"subtype_{name}"] for name in ("positive", "negative")})
    if np.isfinite(area_C).all():
        found["subtype_auroc_macro"] = float(area_C.mean())
    for row, true in enumerate(SUBTYPES):
        if np.isfinite(area_C[row]):
            found[f"subtype_auroc/{true}"] = float(area_C[row])
        for column, called in enumerate(SUBTYPES):
            found[f"subtype_confusion/{true}/{called}"] = float(confusion[row, column])
    return found
