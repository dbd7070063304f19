"""Sums by subgroup (sex, age band), with small cells withheld before anything leaves the site.

A cell is one group in one column. It is withheld if it stands on fewer people than the minimum; and because
the site's total also leaves, further cells of the column are withheld until what is missing from the total
stands on at least the minimum of people too (secondary suppression). A cell of nobody is not withheld: it is
zero.

Legend: R rows, G groups, K columns, C classes of rows that are protected each for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

MINIMUM_PATIENTS = 10
SEX_GROUPS: tuple[str, ...] = ("F", "M", "unknown")
AGE_GROUPS: tuple[str, ...] = ("<45", "45-54", "55-64", "65-74", ">=75", "unknown")
AGE_EDGES_YEARS: tuple[float, ...] = (45.0, 55.0, 65.0, 75.0)

SumsOfRows = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def sex_groups(sex_R: np.ndarray) -> np.ndarray:
    """Index into ``SEX_GROUPS`` of each row, from 0 for F, 1 for M, anything else unknown."""
    return np.where((sex_R == 0) | (sex_R == 1), sex_R, len(SEX_GROUPS) - 1).astype(np.int64)


def age_groups(age_years_R: np.ndarray) -> np.ndarray:
    """Index into ``AGE_GROUPS`` of each row's age in years; NaN is unknown."""
    band = np.searchsorted(AGE_EDGES_YEARS, age_years_R, side="right")
    return np.where(np.isnan(age_years_R), len(AGE_GROUPS) - 1, band).astype(np.int64)


def group_sums(
    sums_of: SumsOfRows,
    *,
    group_R: np.ndarray,
    groups: int,
    patient_R: np.ndarray,
    present_CRK: Sequence[np.ndarray],
    minimum: int = MINIMUM_PATIENTS,
) -> dict[str, np.ndarray]:
    """Sums of each group, zero where they are withheld.

    Args:
        sums_of: row numbers to sums with K in front: ``regression_sums``, ``score_histograms``,
            ``calibration_sums`` of those rows, or row terms added up.
        group_R: int, the group of each row, below ``groups``.
        groups: G; the same at all sites, so that the sums may be added.
        patient_R: int, the person of each row.
        present_CRK: for each class, bool [R, K], the rows that count in a column. One class for a phenotype
            (its value is known); positives and negatives for a disease, because a cell with a hundred healthy
            and two ill would give the scores of the two.
        minimum: of people, in each class that a cell has at all.

    Returns:
        Each sum as float64 [G, K, ...]; ``patients`` [C, G, K], the people of each class, 0 where withheld;
        and ``withheld`` [G, K], 1 or 0, which added over sites is the number of sites that withheld the cell.
    """
    patients = np.stack(
        [
            people_by_cell(group_R, groups=groups, patient_R=patient_R, present_RK=present_RK)
            for present_RK in present_CRK
        ]
    )
    withheld_GK = withheld_cells(patients, minimum=minimum)
    by_group = [sums_of(np.flatnonzero(group_R == group)) for group in range(groups)]
    found: dict[str, np.ndarray] = {}
    for name in by_group[0]:
        stacked = np.stack([np.asarray(sums[name], dtype=np.float64) for sums in by_group])
        hidden = withheld_GK.reshape(*withheld_GK.shape, *[1] * (stacked.ndim - 2))
        found[name] = np.where(hidden, 0.0, stacked)
    found["patients"] = np.where(withheld_GK, 0, patients).astype(np.float64)
    found["withheld"] = withheld_GK.astype(np.float64)
    return found


def people_by_cell(
    group_R: np.ndarray, *, groups: int, patient_R: np.ndarray, present_RK: np.ndarray
) -> np.ndarray:
    """Number of people with a counted row in each cell, int64 [G, K].

    A person whose rows lie in two groups (an age band later) counts in both.
    """
    found_GK = np.zeros((groups, present_RK.shape[1]), dtype=np.int64)
    for group in range(groups):
        rows = np.flatnonzero(group_R == group)
        people, inverse = np.unique(patient_R[rows], return_inverse=True)
        seen_QK = np.zeros((len(people), present_RK.shape[1]), dtype=bool)
        np.logical_or.at(seen_QK, inverse, present_RK[rows])
        found_GK[group] = seen_QK.sum(axis=0)
    return found_GK


def withheld_cells(patients_CGK: np.ndarray, *, minimum: int) -> np.ndarray:
    """Which cells are withheld, bool [G, K].

    The small ones; then, class by class, the smallest of those left until the people withheld are at least
    the minimum or nobody. Where no cell is left to add, the whole column is withheld.
    """
    withheld_GK: np.ndarray = np.any((patients_CGK > 0) & (patients_CGK < minimum), axis=0)
    for column in range(withheld_GK.shape[1]):
        patients_CG = patients_CGK[:, :, column]
        hidden_G = withheld_GK[:, column]
        # Each turn withholds at least one cell more, so it ends.
        while True:
            missing_C = (patients_CG * hidden_G).sum(axis=1)
            short = np.flatnonzero((missing_C > 0) & (missing_C < minimum))
            if not len(short):
                break
            counts_G = patients_CG[short[0]]
            open_cells = np.flatnonzero(~hidden_G & (counts_G > 0))
            if len(open_cells):
                hidden_G[open_cells[np.argmin(counts_G[open_cells])]] = True
            else:
                hidden_G[:] = True
                break
        withheld_GK[:, column] = hidden_G
    return withheld_GK
