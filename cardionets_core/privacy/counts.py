"""Which sums are counts of people or of their records, and what may be told of them (row 9 of the walk).

Comes in: what a task declares of its sums, their arrays, and the site's policy. Goes out: the same arrays
with counts rounded and histograms made coarse, or a refusal that names the array. A count is judged before it
is rounded. Knows no task and no file; who is behind a count, the task sees to where it makes it.

A declaration is a mapping of patterns over the names of a task's sums, as ``fnmatch`` reads them; the first
that fits counts. A sum that no pattern names is no count: a moment, a loss, a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from cardionets_core.errors import DisclosureRefusedError
from cardionets_core.exchange.messages import MEASURED, PERSONAL

FINE_BINS = 2048
REPLICATE_BINS = 128
COARSE_BINS = 64

CountKind = Literal["cell", "histogram", "inner"]


@dataclass(frozen=True, slots=True)
class Count:
    """What a sum counts.

    Attributes:
        kind: ``cell``: every entry counts a group of people, or their records, by itself. ``histogram``: the
            last axis holds bins, and a group is the sum over them. ``inner``: entries divide a group that is
            judged by another sum (bins of a calibration, a confusion, bootstrap replicates); they may be
            small, and are left as they are.
        within: of a cell: name of the sum of which it is a part, so that the rest is a group too.
        rounds: of a cell: whether it is rounded; not where variances are made with it.
        coarsens: whether its last axis holds bins that are put together where the policy says coarse.
    """

    kind: CountKind
    within: str = ""
    rounds: bool = True
    coarsens: bool = False


Counts = Mapping[str, Count]
CELL = Count("cell")
DIVISOR = Count("cell", rounds=False)
"""A number of rows by which other sums are divided: rounded, it would falsify variances."""
HISTOGRAM = Count("histogram", coarsens=True)
INNER = Count("inner")
REPLICATES = Count("inner", coarsens=True)
PEOPLE: Counts = {"n_rows": CELL, "n_patients": CELL}
"""What every task measures beside its own."""


def under(prefix: str, counts: Counts) -> Counts:
    """A declaration for the same sums under another beginning of their names."""
    return {
        prefix + name: replace(count, within=count.within and prefix + count.within)
        for name, count in counts.items()
    }


def bare_name(name: str) -> str:
    """A sum's name as its task knows it: without what says when, and of which model, it was measured."""
    return name.removeprefix(MEASURED).removeprefix(PERSONAL)


def count_of(name: str, counts: Counts) -> Count | None:
    """What a sum counts, or None where it counts nothing."""
    bare = bare_name(name)
    return next((count for pattern, count in counts.items() if fnmatchcase(bare, pattern)), None)


def check_counts(sums: Mapping[str, np.ndarray], counts: Counts, *, minimum: int) -> None:
    """Refuse sums in which a group of fewer people than the policy's minimum could be seen by itself.

    What is counted may be records, of which a person has several; then this is less than the task did.

    Args:
        sums: by their names on the wire.
        counts: the task's declaration.
        minimum: of people, or none at all.

    Raises:
        DisclosureRefusedError: names the first such array.
    """
    for name, value in sums.items():
        count = count_of(name, counts)
        if count is None or count.kind == "inner":
            continue
        groups = value.sum(axis=-1) if count.kind == "histogram" else value
        _check(name, groups, minimum)
        whole = sums.get(name.removesuffix(bare_name(name)) + count.within) if count.within else None
        if whole is not None:
            _check(f"the rest of {name}", whole - value, minimum)


def told(value: np.ndarray, count: Count | None, *, multiple: int, minimum: int, coarse: bool) -> np.ndarray:
    """A sum as it may be told.

    Args:
        value: float64.
        count: what it counts.
        multiple: to which cells are rounded; 1 leaves them.
        minimum: of people; a group that is there is never told as fewer.
        coarse: whether histograms lose their fine bins.
    """
    if count is None:
        return value
    if count.kind == "cell" and count.rounds:
        return rounded(value, multiple=multiple, least=minimum)
    return coarsened(value) if coarse and count.coarsens else value


def rounded(value: np.ndarray, *, multiple: int, least: int = 1) -> np.ndarray:
    """Counts as multiples: the nearest, halves upwards; 0 stays 0 and nothing else becomes it.

    The same count gives the same number whenever it is asked for, so asking again averages nothing out.

    Args:
        value: counts, at least 0.
        multiple: 1 leaves every count as it is.
        least: what is not 0 becomes no less than the first multiple from here on.
    """
    if multiple == 1:
        return value
    lowest = multiple * max(1.0, np.ceil(least / multiple))
    nearest = multiple * np.floor(value / multiple + 0.5)
    return np.where(value > 0, np.maximum(nearest, lowest), 0.0)


def coarsened(value: np.ndarray) -> np.ndarray:
    """Counts of 64 wide bins, each laid into the middle one of its fine bins; names and shapes stay the same.

    Raises:
        DisclosureRefusedError: the last axis does not hold bins that can be put together.
    """
    bins = value.shape[-1] if value.ndim else 0
    if bins not in (FINE_BINS, REPLICATE_BINS):
        raise DisclosureRefusedError(f"a histogram came with {bins} bins", where="gate")
    width = bins // COARSE_BINS
    found = np.zeros_like(value)
    found[..., width // 2 :: width] = value.reshape(*value.shape[:-1], COARSE_BINS, width).sum(axis=-1)
    return found


def _check(name: str, groups: np.ndarray, minimum: int) -> None:
    small = (groups > 0) & (groups < minimum)
    if small.any() or (groups < 0).any():
        raise DisclosureRefusedError(
            f"{name} tells of a group of fewer than {minimum} people",
            where="site.yaml: policy.minimum_cell",
            remedy="report it: the task should have withheld the group",
        )
