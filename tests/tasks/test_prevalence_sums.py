"""Prevalence and subtype shares from counts: closed forms, limits, and counts that contradict each other."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.evaluation import add_sums
from cardionets_core.tasks.prevalence_sums import (
    prevalence_log_odds,
    prevalence_sums,
    subtype_log_shares,
    subtype_sums,
)

NAN = np.nan


def test_unknown_labels_are_counted_nowhere():
    labels = np.array([[1.0, NAN, 0.0], [0.0, NAN, 0.0], [1.0, 1.0, NAN]])
    sums = prevalence_sums(labels)
    assert sums["known"].tolist() == [3.0, 1.0, 2.0]
    assert sums["positive"].tolist() == [2.0, 1.0, 0.0]
    assert np.allclose(prevalence_log_odds(sums), np.log([2.5 / 1.5, 1.5 / 0.5, 0.5 / 2.5]))


def test_sites_equal_pooled_exactly_and_differ_from_the_mean_of_sites():
    rng = np.random.default_rng(0)
    sites = {"a": rng.random((400, 5)) < 0.02, "b": rng.random((30, 5)) < 0.5}
    apart = prevalence_log_odds(add_sums({s: prevalence_sums(v) for s, v in sites.items()}))
    pooled = np.concatenate(list(sites.values())).astype(float)
    assert np.array_equal(apart, prevalence_log_odds(prevalence_sums(pooled)))
    share = pooled.mean(axis=0)
    assert np.allclose(apart, np.log(share / (1 - share)), atol=0.05), "half a case hardly matters here"
    each = [prevalence_log_odds(prevalence_sums(v)) for v in sites.values()]
    assert (np.abs(apart - np.mean(each, axis=0)) > 0.5).all()


@pytest.mark.parametrize("rows", [0, 1, 10])
def test_nobody_and_everybody_have_finite_opposite_log_odds(rows):
    none = prevalence_log_odds(prevalence_sums(np.zeros((rows, 2))))
    everybody = prevalence_log_odds(prevalence_sums(np.ones((rows, 2))))
    assert np.isfinite(none).all()
    assert np.allclose(none, -everybody)
    assert (none < 0).all() if rows else not none.any()


def test_half_is_even_odds():
    assert prevalence_log_odds(prevalence_sums(np.array([[0.0], [1.0]]))).tolist() == [0.0]


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5, np.inf])
def test_another_label_is_refused(label):
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        prevalence_sums(np.array([[1.0], [label]]))


@pytest.mark.parametrize(("known", "positive"), [(3.0, 4.0), (3.0, -1.0), (-1.0, 0.0)])
def test_counts_that_contradict_each_other_are_refused(known, positive):
    with pytest.raises(ReplyRefusedError, match="contradict"):
        prevalence_log_odds({"known": np.array([5.0, known]), "positive": np.array([1.0, positive])})


def test_subtype_shares_are_counts_with_half_a_case_added():
    sums = add_sums(
        {
            "a": subtype_sums(np.array([0, 0, -1, 2]), classes=3),
            "b": subtype_sums(np.array([2, 2]), classes=3),
        }
    )
    assert sums["subtypes"].tolist() == [2.0, 0.0, 3.0]
    shares = np.exp(subtype_log_shares(sums))
    assert np.allclose(shares, np.array([2.5, 0.5, 3.5]) / 6.5)
    assert shares.sum() == pytest.approx(1.0)


def test_without_cases_all_subtypes_are_alike():
    sums = subtype_sums(np.full(4, -1), classes=3)
    assert np.allclose(subtype_log_shares(sums), -np.log(3.0))


@pytest.mark.parametrize("index", [-2, 3])
def test_an_unknown_subtype_is_refused(index):
    with pytest.raises(ValueError, match="-1 to 2"):
        subtype_sums(np.array([0, index]), classes=3)


def test_a_negative_count_is_refused():
    with pytest.raises(ReplyRefusedError, match="below 0"):
        subtype_log_shares({"subtypes": np.array([1.0, -1.0, 0.0])})
