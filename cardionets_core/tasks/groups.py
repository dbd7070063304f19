"""Sums by sex and by age band of a site's rows, for the tasks that report subgroups.

Legend: R rows, K columns, C classes of rows that are protected each for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.subgroups import SumsOfRows, age_groups, group_sums, sex_groups
from cardionets_core.privacy.counts import CELL, Counts
from cardionets_core.tasks.base import Sums

# In the order of the evaluation's groups; spelt so that any tracker takes them as part of a metric's name.
GROUPS: dict[str, tuple[str, ...]] = {
    "sex": ("sex-F", "sex-M", "sex-unknown"),
    "age": (
        "age-under-45",
        "age-45-54",
        "age-55-64",
        "age-65-74",
        "age-75-and-over",
        "age-unknown",
    ),
}
# People behind a cell that leaves the site, whatever less a site's policy asks for.
SMALLEST_CELL = 5


def group_counts(counts: Counts) -> Counts:
    """A declaration for the sums of each group, made of that for the whole."""
    return {
        f"{kind}_{name}": count for kind in GROUPS for name, count in {**counts, "patients": CELL}.items()
    }


def sums_by_group(
    sums_of: SumsOfRows,
    *,
    cohort: Cohort,
    rows: np.ndarray,
    present_CRK: Sequence[np.ndarray],
    smallest_cell: int = SMALLEST_CELL,
) -> Sums:
    """Sums of each sex and of each age band; cells of few people are withheld here, at the site.

    Args:
        sums_of: places in ``rows`` to sums with K in front.
        cohort: gives sex and age.
        rows: int64 [R].
        present_CRK: as in ``group_sums``.
        smallest_cell: fewest people in a cell; never less than five.

    Returns:
        The sums with a first axis of groups, named ``sex_...`` and ``age_...``, and ``..._patients``,
        ``..._withheld``.
    """
    groups = {"sex": sex_groups(cohort.row_sex[rows]), "age": age_groups(cohort.row_age_years[rows])}
    return {
        f"{kind}_{name}": value
        for kind, group_R in groups.items()
        for name, value in group_sums(
            sums_of,
            group_R=group_R,
            groups=len(GROUPS[kind]),
            patient_R=cohort.row_patient[rows],
            present_CRK=present_CRK,
            minimum=max(SMALLEST_CELL, smallest_cell),
        ).items()
    }


def each_group(sums: Mapping[str, np.ndarray], names: Sequence[str]) -> Iterator[tuple[str, Sums]]:
    """Each group's name, such as ``sex-F``, and its sums by their own names.

    Args:
        sums: (added) ``sums_by_group``, perhaps among others.
        names: sums that are wanted.
    """
    for kind, groups in GROUPS.items():
        for place, group in enumerate(groups):
            yield group, {name: sums[f"{kind}_{name}"][place] for name in names}
