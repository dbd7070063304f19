"""The federation minus another arm, on the same patients: as a whole, and in each phenotype.

Comes in: scores of two arms, one a seed, whose bootstrap drew the same people. Goes out: rows for
``result.json``. Values and replicates are averaged over seeds before they are compared.

Legend: S seeds, M replicates, K phenotypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.evaluation.comparison import PairedDifference, holm, paired_difference
from simulation.scoring import Columns, Score


def difference_row(ours: Sequence[Score], theirs: Sequence[Score]) -> dict[str, Any]:
    """``mean``, its 95 % interval and the two-sided ``p`` of the paired bootstrap over people.

    Args:
        ours: of the federation, one a seed.
        theirs: of the other arm, on the same task, metric and population.
    """
    found = paired_difference(
        np.mean([score.replicates for score in ours], axis=0),
        np.mean([score.replicates for score in theirs], axis=0),
        difference=float(np.mean([s.mean for s in ours]) - np.mean([s.mean for s in theirs])),
    )
    return {"mean": found.difference, "ci_low": found.low, "ci_high": found.high, "p": found.p_value}


def column_rows(ours: Sequence[Score], theirs: Sequence[Score]) -> list[dict[str, Any]]:
    """R2 of each phenotype that both arms measured in every seed, and the paired difference.

    Holm's adjustment is over these columns. With M replicates no ``p`` is below ``2 / (M + 1)``, so with K
    columns no ``p_holm`` is below K times that: for many columns the study needs many replicates.

    Args:
        ours: of the federation, one a seed.
        theirs: of the other arm.

    Returns:
        In the order of the fields: ``field``, ``name``, ``title``, ``r2`` (the federation's), ``r2_other``,
        ``difference``, ``ci_low``, ``ci_high``, ``p``, ``p_holm``.
    """
    one, other = _mean_columns(ours), _mean_columns(theirs)
    if one is None or other is None:
        return []
    measured = np.flatnonzero(np.isfinite(one.r2_K) & np.isfinite(other.r2_K))
    paired: list[PairedDifference] = [
        paired_difference(
            one.replicates_MK[:, column],
            other.replicates_MK[:, column],
            difference=float(one.r2_K[column] - other.r2_K[column]),
        )
        for column in measured
    ]
    adjusted = holm(np.array([each.p_value for each in paired]))
    return [
        {
            "field": PHENOTYPES[column].field,
            "name": PHENOTYPES[column].name,
            "title": PHENOTYPES[column].title,
            "r2": float(one.r2_K[column]),
            "r2_other": float(other.r2_K[column]),
            "difference": found.difference,
            "ci_low": found.low,
            "ci_high": found.high,
            "p": found.p_value,
            "p_holm": float(p_holm),
        }
        for column, found, p_holm in zip(measured, paired, adjusted, strict=True)
    ]


def _mean_columns(scores: Sequence[Score]) -> Columns | None:
    """Means over seeds; a column that one seed did not measure is NaN."""
    columns = [score.columns for score in scores if score.columns is not None]
    if not columns:
        return None
    return Columns(
        r2_K=np.mean([each.r2_K for each in columns], axis=0),
        replicates_MK=np.mean([each.replicates_MK for each in columns], axis=0),
    )
