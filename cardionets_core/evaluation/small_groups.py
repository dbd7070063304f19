"""Columns and classes that too few people stand behind, taken out before anything is summed (rows 6 and 8).

Comes in: labels or values of some rows, and whose rows they are. Goes out: the same with NaN, for not known,
where a class or a column would tell of fewer people than the site's policy allows. Whatever is then summed
(counts, histograms, replicates, subgroups, Gram sums) tells nothing of them, and nothing can be had by
subtraction: a disease is taken out with both of its classes. Nobody at all is no small group.

Legend: R rows, K columns, C subtypes.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.evaluation.subgroups import people_by_cell


def without_small_classes(label_RK: np.ndarray, *, patient_R: np.ndarray, minimum: int) -> np.ndarray:
    """Labels without the diseases of which few people are ill, or few are well.

    Few are also those who are known in one class alone, where people have rows in both.

    Args:
        label_RK: 1, 0, or NaN where not known.
        patient_R: int, the person of each row.
        minimum: of people, in each class that there is.
    """
    ill_K, well_K, known_K = (
        _people(patient_R, present_RK) for present_RK in (label_RK == 1, label_RK == 0, ~np.isnan(label_RK))
    )
    groups_CK = np.stack([ill_K, well_K, known_K - ill_K, known_K - well_K])
    return np.where(_few(groups_CK, minimum).any(axis=0), np.nan, label_RK)


def without_small_columns(value_RK: np.ndarray, *, patient_R: np.ndarray, minimum: int) -> np.ndarray:
    """Values without the columns that are known of few people.

    Args:
        value_RK: NaN where not known.
        patient_R: int, the person of each row.
        minimum: of people.
    """
    return np.where(_few(_people(patient_R, ~np.isnan(value_RK)), minimum), np.nan, value_RK)


def without_small_subtypes(label_RC: np.ndarray, *, patient_R: np.ndarray, minimum: int) -> np.ndarray:
    """One-hot labels without the rows of subtypes that few people have; the others keep theirs.

    Args:
        label_RC: 1 or 0, or NaN where not known.
        patient_R: int, the person of each row.
        minimum: of people.
    """
    few_C = _few(_people(patient_R, label_RC == 1), minimum)
    hidden_R = ((label_RC == 1) & few_C).any(axis=1)
    return np.where(hidden_R[:, None], np.nan, label_RC)


def _people(patient_R: np.ndarray, present_RK: np.ndarray) -> np.ndarray:
    everyone = np.zeros(len(patient_R), dtype=np.int64)
    return people_by_cell(everyone, groups=1, patient_R=patient_R, present_RK=present_RK)[0]


def _few(people: np.ndarray, minimum: int) -> np.ndarray:
    return (people > 0) & (people < minimum)
