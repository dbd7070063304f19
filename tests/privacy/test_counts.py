"""Counts are judged before they are rounded, rounded the same way each time, and never to nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.errors import DisclosureRefusedError
from cardionets_core.evaluation.histogram_replicates import coarse_histograms
from cardionets_core.privacy.counts import (
    CELL,
    COARSE_BINS,
    DIVISOR,
    FINE_BINS,
    HISTOGRAM,
    INNER,
    REPLICATES,
    Count,
    check_counts,
    coarsened,
    count_of,
    rounded,
    told,
    under,
)

counted = st.lists(st.integers(0, 10_000), min_size=1, max_size=20).map(lambda x: np.array(x, dtype=float))
multiples = st.integers(1, 50)


@given(counted, multiples, st.integers(1, 60))
def test_rounding_gives_multiples_and_never_makes_a_group_vanish_or_appear(counts, multiple, least):
    counts = np.where(counts < least, 0.0, counts)  # as the gate lets them through
    found = rounded(counts, multiple=multiple, least=least)
    assert ((found == 0) == (counts == 0)).all()
    assert (found[found > 0] >= least).all()
    if multiple > 1:
        assert (found % multiple == 0).all()
        # Halves go up, and what is under the least comes up to its first multiple: no further than one step.
        assert (np.abs(found - counts) < multiple).all()
    else:
        assert (found == counts).all()


@given(counted, multiples)
def test_asking_again_and_rounding_again_tell_nothing_more(counts, multiple):
    once = rounded(counts, multiple=multiple)
    assert (rounded(counts, multiple=multiple) == once).all()
    assert (rounded(once, multiple=multiple) == once).all()
    order = np.argsort(counts)
    assert (np.diff(once[order]) >= 0).all()


def test_one_person_is_told_as_the_multiple_and_halves_go_up():
    assert rounded(np.array([0, 1, 12, 12.5, 13]), multiple=5).tolist() == [0, 5, 10, 15, 15]
    assert rounded(np.array([5.0, 7.0]), multiple=4, least=5).tolist() == [8, 8]


def test_coarse_bins_keep_every_count_and_stay_where_replicates_find_them():
    rng = np.random.default_rng(0)
    fine = rng.poisson(0.05, size=(3, 5, FINE_BINS)).astype(float)
    found = coarsened(fine)
    assert found.shape == fine.shape and (found.sum(axis=-1) == fine.sum(axis=-1)).all()
    assert (found > 0).any(axis=(0, 1)).sum() <= COARSE_BINS
    assert (coarsened(found) == found).all()
    # 128 bins made of the coarse ones are the coarse ones of the 128 bins.
    sums = {"positive": fine, "negative": fine}
    of_replicates = coarsened(coarse_histograms(sums)["positive"])
    assert (
        coarse_histograms({name: coarsened(v) for name, v in sums.items()})["positive"] == of_replicates
    ).all()
    with pytest.raises(DisclosureRefusedError):
        coarsened(np.zeros((2, 15)))


DECLARED = {
    "known": CELL,
    "positive": Count("cell", within="known"),
    "scores": HISTOGRAM,
    "bins": INNER,
    "boot_*": REPLICATES,
    "nj": DIVISOR,
}


@pytest.mark.parametrize(
    "sums",
    [
        {"known": [100, 4]},
        {"known": [100], "positive": [96]},  # four well by subtraction
        {"nj": [3]},
        {"known": [-1]},
        {"scores": [[1, 1, 2], [9, 0, 0]]},
        {"measured/personal/known": [2]},
        {"measured/known": [100], "measured/positive": [99]},
    ],
)
def test_a_group_of_few_is_refused_by_its_name(sums):
    arrays = {name: np.array(value, dtype=float) for name, value in sums.items()}
    with pytest.raises(DisclosureRefusedError, match="fewer than 5 people") as caught:
        check_counts(arrays, DECLARED, minimum=5)
    assert any(name in caught.value.what for name in sums)


def test_groups_at_the_minimum_nobody_and_parts_of_a_group_pass():
    sums = {
        "known": [100, 0, 5],
        "positive": [5, 0, 5],
        "scores": [[1, 2, 2], [0, 0, 0]],
        "bins": [1, 2],
        "boot_positive": [[1, 0]],
        "moment": [0.5, 1],
    }
    check_counts({name: np.array(value, dtype=float) for name, value in sums.items()}, DECLARED, minimum=5)


def test_only_what_is_declared_is_changed_and_only_so():
    value = np.array([7.0, 12.0])
    policy = {"multiple": 5, "minimum": 5, "coarse": True}
    assert told(value, count_of("known", DECLARED), **policy).tolist() == [5, 10]
    for name in ("nj", "bins", "moment"):
        assert told(value, count_of(name, DECLARED), **policy) is value
    wide = np.zeros((1, FINE_BINS))
    wide[0, 3] = 9
    assert told(wide, HISTOGRAM, **policy)[0, 16] == 9
    assert told(wide, HISTOGRAM, **{**policy, "coarse": False}) is wide


def test_a_declaration_under_a_prefix_finds_its_whole_there():
    moved = under("fused/", DECLARED)
    assert moved["fused/positive"].within == "fused/known" and moved["fused/nj"] == DIVISOR
    sums = {"fused/known": np.array([50.0]), "fused/positive": np.array([47.0]), "known": np.array([3.0])}
    with pytest.raises(DisclosureRefusedError, match="the rest of fused/positive"):
        check_counts(sums, moved, minimum=5)
