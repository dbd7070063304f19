"""What a test does at one threshold for each disease, as sums that may be added over sites.

Legend: R rows, D diseases, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.records import DISEASES
from cardionets_core.evaluation.comparison import wilson_interval
from cardionets_core.evaluation.operating_points import Confusion, predictive_values, rates
from cardionets_core.privacy.counts import INNER, Counts
from cardionets_core.tasks.base import Sums
from cardionets_core.tasks.binary_sums import by_disease
from cardionets_core.tasks.groups import each_group, group_counts, sums_by_group

COUNTS: tuple[str, ...] = ("true_positive", "false_positive", "true_negative", "false_negative")
DECISION_COUNTS: Counts = {**dict.fromkeys(COUNTS, INNER), **group_counts(dict.fromkeys(COUNTS, INNER))}
"""They divide the ill and the well, whom the histograms count."""


def decision_sums(
    called_RD: np.ndarray, label_RD: np.ndarray, *, cohort: Cohort, rows: np.ndarray, smallest_cell: int = 1
) -> Sums:
    """Confusion counts.

    Args:
        called_RD: bool, what is called positive.
        label_RD: 1, 0, or NaN where not known.
        cohort: whose rows; gives people, sex and age.
        rows: int64 [R].
        smallest_cell: fewest people in a subgroup.

    Returns:
        The names of ``COUNTS`` [D], and ``sex_...``, ``age_...`` [G, D].
    """
    terms = {
        "true_positive": called_RD & (label_RD == 1),
        "false_positive": called_RD & (label_RD == 0),
        "true_negative": ~called_RD & (label_RD == 0),
        "false_negative": ~called_RD & (label_RD == 1),
    }

    def sums_of(places: np.ndarray) -> Sums:
        return {name: value[places].sum(axis=0).astype(np.float64) for name, value in terms.items()}

    return {
        **sums_of(np.arange(len(rows))),
        **sums_by_group(
            sums_of,
            cohort=cohort,
            rows=rows,
            present_CRK=[label_RD == 1, label_RD == 0],
            smallest_cell=smallest_cell,
        ),
    }


def decision_metrics(sums: Mapping[str, np.ndarray], *, prevalence_D: np.ndarray) -> dict[str, float]:
    """Metrics of (added) ``decision_sums`` for each disease, ``sensitivity/cad`` and so on.

    ``sensitivity`` and ``specificity`` with Wilson's 95 % intervals (``sensitivity_low/cad``; rows as
    independent), ``ppv``, ``npv``, ``accuracy``, ``f1``, ``kappa`` at the prevalence of these rows,
    ``ppv_at_prior`` and ``npv_at_prior`` at the given one, ``sensitivity/cad/sex-F`` in a subgroup.

    Args:
        sums: of all sites.
        prevalence_D: the global one.
    """
    confusion = Confusion(**{name: sums[name] for name in COUNTS})
    values = rates(confusion)
    found: dict[str, float] = {}
    for name, value in values.items():
        found |= by_disease(name, value)
    right = {"sensitivity": confusion.true_positive, "specificity": confusion.true_negative}
    wrong = {"sensitivity": confusion.false_negative, "specificity": confusion.false_positive}
    for name, successes in right.items():
        totals = successes + wrong[name]
        ends = [wilson_interval(float(s), float(n)) for s, n in zip(successes, totals, strict=True)]
        found |= by_disease(f"{name}_low", np.array([low for low, _ in ends]))
        found |= by_disease(f"{name}_high", np.array([high for _, high in ends]))
    for place, disease in enumerate(DISEASES):
        found |= _at_prior(values, place=place, disease=disease, prevalence=float(prevalence_D[place]))
    for group, of_group in each_group(sums, COUNTS):
        in_group = rates(Confusion(**of_group))
        for name in right:
            for key, number in by_disease(name, in_group[name]).items():
                found[f"{key}/{group}"] = number
    return found


def _at_prior(
    values: Mapping[str, np.ndarray], *, place: int, disease: str, prevalence: float
) -> dict[str, float]:
    ppv, npv = predictive_values(
        values["sensitivity"][place], values["specificity"][place], prevalence=prevalence
    )
    found = {f"ppv_at_prior/{disease}": float(ppv), f"npv_at_prior/{disease}": float(npv)}
    return {name: value for name, value in found.items() if np.isfinite(value)}
