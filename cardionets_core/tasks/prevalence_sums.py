"""How common each disease is over all sites, from counts (SCIENCE 4 "screening" and 5.5).

The screening loss adds the log odds of the global prevalence to its logits; a site's own prevalence would
teach each site another disease. Small samples: half a case is added to each class (the rule of Haldane and
Anscombe), so that a disease that nobody has, or everybody, has finite log odds, and one about which nothing
is known has 0.

Legend: R rows, K diseases, C subtypes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardionets_core.errors import ReplyRefusedError

ADDED = 0.5


def prevalence_sums(label_RK: np.ndarray) -> dict[str, np.ndarray]:
    """Counts of each disease; they may be added over sites.

    Args:
        label_RK: 1 present, 0 absent, NaN unknown; R = 0 is legal.

    Returns:
        float64 [K]: ``known`` and ``positive``.

    Raises:
        ValueError: another label.
    """
    label_RK = np.asarray(label_RK, dtype=np.float64)
    known_RK = ~np.isnan(label_RK)
    if not np.isin(label_RK[known_RK], (0.0, 1.0)).all():
        raise ValueError("a label is 0, 1 or NaN")
    return {
        "known": known_RK.sum(axis=0).astype(np.float64),
        "positive": np.where(known_RK, label_RK, 0.0).sum(axis=0),
    }


def prevalence_log_odds(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``log((positive + 1/2) / (known - positive + 1/2))``, float64 [K].

    Raises:
        ReplyRefusedError: more positives than known labels, or a count below 0.
    """
    known, positive = sums["known"], sums["positive"]
    if not ((positive >= 0.0) & (positive <= known)).all():
        raise ReplyRefusedError(
            "counts of a disease contradict each other",
            where="statistics over sites: prevalence",
            remedy="leave out the site whose counts are wrong",
        )
    return np.log((positive + ADDED) / (known - positive + ADDED))


def subtype_sums(subtype_R: np.ndarray, *, classes: int) -> dict[str, np.ndarray]:
    """Counts of each subtype; they may be added over sites.

    Args:
        subtype_R: index of the subtype, -1 where there is none or it is unknown.
        classes: C.

    Returns:
        float64 [C]: ``subtypes``.

    Raises:
        ValueError: an index outside -1 to C - 1.
    """
    subtype_R = np.asarray(subtype_R, dtype=np.int64)
    if ((subtype_R < -1) | (subtype_R >= classes)).any():
        raise ValueError(f"a subtype is -1 to {classes - 1}")
    counts = np.bincount(subtype_R[subtype_R >= 0], minlength=classes)
    return {"subtypes": counts.astype(np.float64)}


def subtype_log_shares(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """``log((n_c + 1/2) / (n + C/2))``, float64 [C]; their exponentials sum to 1, and are 1/C without cases.

    Raises:
        ReplyRefusedError: a count below 0.
    """
    counts = sums["subtypes"]
    if (counts < 0.0).any():
        raise ReplyRefusedError(
            "a count of a subtype is below 0",
            where="statistics over sites: subtypes",
            remedy="leave out the site whose counts are wrong",
        )
    return np.log((counts + ADDED) / (counts.sum() + ADDED * len(counts)))
