"""What the phenotype head and the phenotype probe measure, as sums that may be added over sites.

Legend: R rows, K phenotypes, M bootstrap replicates, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.phenotypes import FIRST_FIELD
from cardionets_core.errors import SourceInvalidError
from cardionets_core.evaluation.bootstrap import bootstrap_sums, percentile_interval
from cardionets_core.evaluation.regression import (
    mean_absolute_error,
    measured_columns,
    pearson,
    r_squared,
    root_mean_square_error,
    row_terms,
)
from cardionets_core.evaluation.small_groups import without_small_columns
from cardionets_core.privacy.counts import DIVISOR, INNER, Counts
from cardionets_core.tasks.base import SiteView, Sums
from cardionets_core.tasks.groups import each_group, group_counts, sums_by_group

PHENOTYPE_COUNTS: Counts = {"n": DIVISOR, "boot_n": INNER, **group_counts({"n": DIVISOR})}
"""Which of ``phenotype_sums`` are counts."""
REPLICATED: tuple[str, ...] = ("n", "Sy", "Syy", "See")


def phenotype_targets(site: SiteView, rows: np.ndarray, *, columns: int) -> np.ndarray:
    """Values of some rows in the unit of each field, float64 [R, K], NaN where missing; R = 0 keeps K.

    Raises:
        SourceInvalidError: the cohort has another number of columns than the model.
    """
    cohort = site.cohort
    if cohort.phenotypes.shape[1] != columns:
        raise SourceInvalidError(
            f"{cohort.phenotypes.shape[1]} phenotype columns, but the model has {columns}",
            where=f"site {cohort.site}",
            remedy="prepare the cache with this version",
        )
    return cohort.phenotypes[rows].astype(np.float64)


def phenotype_sums(
    target_RK: np.ndarray,
    predicted_RK: np.ndarray,
    *,
    cohort: Cohort,
    rows: np.ndarray,
    replicates: int,
    seed: int,
    smallest_cell: int = 1,
    draws: str = "",
) -> Sums:
    """Regression sums of predictions in the unit of each field.

    Args:
        target_RK: NaN where missing, and everywhere in a column that was not trained.
        predicted_RK: finite.
        cohort: whose rows; gives people, sex and age.
        rows: int64 [R].
        replicates: M.
        seed: of the draws of people.
        smallest_cell: fewest people of whom a column is known, and in a subgroup of it.
        draws: the site's secret; who knows the draws can solve the replicates for each person's part.

    Returns:
        Regression sums [K]; ``boot_*`` [M, K] and ``sex_*``, ``age_*`` [G, K] of n, Sy, Syy, See.
    """
    target_RK = without_small_columns(target_RK, patient_R=cohort.row_patient[rows], minimum=smallest_cell)
    terms = row_terms(target_RK, predicted_RK)
    few = {name: terms[name] for name in REPLICATED}
    replicated = bootstrap_sums(
        few, cohort.row_patient[rows], replicates=replicates, seed=seed, site=cohort.site + draws
    )

    def sums_of(places: np.ndarray) -> Sums:
        return {name: value[places].sum(axis=0) for name, value in few.items()}

    return {
        **{name: value.sum(axis=0) for name, value in terms.items()},
        **{f"boot_{name}": value for name, value in replicated.items()},
        **sums_by_group(
            sums_of,
            cohort=cohort,
            rows=rows,
            present_CRK=[np.isfinite(target_RK)],
            smallest_cell=smallest_cell,
        ),
    }


def phenotype_replicates(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Replicates of the mean R2 over the measured columns, float64 [M]; NaN where a column is undefined."""
    columns = np.flatnonzero(measured_columns(sums))
    replicated = r_squared({name: sums[f"boot_{name}"] for name in REPLICATED})[:, columns]
    return replicated.mean(axis=1) if len(columns) else np.full(len(replicated), np.nan)


def phenotype_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean R2 with its 95 % interval, mean r, and R2, r, MAE, RMSE of each column (``r2/24100``, ...).

    Only columns with at least 10 values that vary; an interval is over the same columns. ``r2_mean/sex-F``
    and the like are over those of these columns that are measured in the group too, which are
    ``columns/sex-F`` many.
    """
    measured_K = measured_columns(sums)
    columns = np.flatnonzero(measured_K)
    found = {"columns": float(len(columns))}
    if not len(columns):
        return found
    by_column = {
        "r2": r_squared(sums),
        "pearson": pearson(sums),
        "mae": mean_absolute_error(sums),
        "rmse": root_mean_square_error(sums),
    }
    found["r2_mean"] = float(by_column["r2"][columns].mean())
    low, high = percentile_interval(phenotype_replicates(sums))
    if np.isfinite([low, high]).all():
        found["r2_mean_low"], found["r2_mean_high"] = low, high
    correlations = by_column["pearson"][columns]
    if np.isfinite(correlations).any():
        found["pearson_mean"] = float(np.nanmean(correlations))
    for group, of_group in each_group(sums, REPLICATED):
        both_K = measured_K & measured_columns(of_group)
        if both_K.any():
            found[f"r2_mean/{group}"] = float(r_squared(of_group)[both_K].mean())
            found[f"columns/{group}"] = float(both_K.sum())
    for name, values in by_column.items():
        for column in columns:
            if np.isfinite(values[column]):
                found[f"{name}/{FIRST_FIELD + int(column)}"] = float(values[column])
    return found
