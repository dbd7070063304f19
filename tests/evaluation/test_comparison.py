"""Paired comparisons against scipy, closed forms, and their own null distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr, ttest_rel

from cardionets_core.evaluation import (
    bootstrap_sums,
    holm,
    mean_absolute_error,
    paired_difference,
    pearson,
    regression_sums,
    steiger_test,
    williams_test,
    wilson_interval,
)
from cardionets_core.evaluation.regression import row_terms


def test_paired_bootstrap_sees_what_an_unpaired_one_would_not():
    """A constant advantage on widely scattered errors: the interval is that of the paired t test."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(200, 1))
    error = rng.gamma(2.0, size=(200, 1))
    first, second = target + error, target + error + 0.05 + 0.1 * rng.random((200, 1))
    metric = [
        mean_absolute_error(
            bootstrap_sums(row_terms(target, p), np.arange(200), replicates=1000, seed=0, site="a")
        )[:, 0]
        for p in (first, second)
    ]
    gap = np.abs(target - first) - np.abs(target - second)
    found = paired_difference(metric[0], metric[1], difference=float(gap.mean()))
    expected = ttest_rel(np.abs(target - first)[:, 0], np.abs(target - second)[:, 0]).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-3)
    assert found.p_value == pytest.approx(2 / 1001) and found.replicates == 1000


def test_paired_difference_limits():
    same = paired_difference(np.ones(50), np.ones(50), difference=0.0)
    assert same.p_value == 1.0 and same.low == same.high == 0.0
    none = paired_difference(np.full(3, np.nan), np.ones(3), difference=0.0)
    assert none.replicates == 0 and np.isnan(none.p_value)
    with pytest.raises(ValueError, match="equally many"):
        paired_difference(np.ones(3), np.ones(2), difference=0.0)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=12))
def test_holm_is_its_definition(values):
    p = np.array(values, dtype=float)
    known = np.sort(p[~np.isnan(p)])
    adjusted = holm(p)
    assert np.array_equal(np.isnan(adjusted), np.isnan(p))
    for value, found in zip(p, adjusted, strict=True):
        if not np.isnan(value):
            smaller = [(len(known) - i) * q for i, q in enumerate(known) if q <= value]
            assert found == pytest.approx(min(1.0, max(smaller)), abs=1e-12)


def test_holm_of_a_worked_case():
    assert holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.5, np.nan, 0.9])).tolist()[0] == 1.0
    assert holm(np.full(82, 0.0005)) == pytest.approx(np.full(82, 0.041))


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (3, 10), (10, 10), (81, 300), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(successes, total, level):
    expected = binomtest(successes, total).proportion_ci(level, method="wilson")
    found = wilson_interval(successes, total, level=level)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert np.isnan(wilson_interval(0, 0)).all()


def draw_correlations(studies: int, n: int):
    """Two predictions that share an error, both equally good, in many studies."""
    rng = np.random.default_rng(2)
    target, shared = rng.normal(size=(2, n, studies))
    first = target + shared + 0.7 * rng.normal(size=(n, studies))
    second = target + shared + 0.7 * rng.normal(size=(n, studies))
    return (pearson(regression_sums(a, b)) for a, b in ((target, first), (target, second), (first, second)))


@pytest.mark.parametrize("test", [williams_test, steiger_test])
def test_p_values_of_equally_good_models_are_uniform(test):
    first, second, between = draw_correlations(4000, 30)
    statistic, p = test(first, second, between=between, count=np.full(4000, 30.0))
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.012)
    assert np.mean(p) == pytest.approx(0.5, abs=0.02)
    back, _ = test(second, first, between=between, count=np.full(4000, 30.0))
    assert np.allclose(statistic, -back)


def test_williams_is_its_definition():
    r1, r2, r12, n = 0.7, 0.5, 0.6, 40
    determinant = np.linalg.det([[1, r1, r2], [r1, 1, r12], [r2, r12, 1]])
    below = 2 * (n - 1) / (n - 3) * determinant + ((r1 + r2) / 2) ** 2 * (1 - r12) ** 3
    expected = (r1 - r2) * np.sqrt((n - 1) * (1 + r12) / below)
    found, _ = williams_test(np.array([r1]), np.array([r2]), between=np.array([r12]), count=np.array([n]))
    assert found[0] == pytest.approx(expected)


def test_independent_predictions_reduce_steiger_to_fisher_when_the_target_says_nothing():
    """With r12 = rbar = 0 the covariance vanishes: Fisher's z of two independent correlations."""
    r = np.array([0.1])
    found, _ = steiger_test(r, -r, between=np.zeros(1), count=np.array([103.0]))
    assert found[0] == pytest.approx(2 * np.arctanh(0.1) * np.sqrt(100 / 2))


@pytest.mark.parametrize("test", [williams_test, steiger_test])
def test_too_few_people_and_equal_predictions_have_no_test(test):
    r = np.array([0.5])
    _, p = test(r, r + 0.1, between=r, count=np.array([3.0]))
    assert np.isnan(p[0])
    _, p = test(r * np.nan, r, between=r, count=np.array([30.0]))
    assert np.isnan(p[0])


def test_the_correlation_between_predictions_comes_from_sums_over_known_targets():
    rng = np.random.default_rng(3)
    target, first, second = rng.normal(size=(3, 50, 1))
    target[:10] = np.nan
    masked = np.where(np.isfinite(target), first, np.nan)
    between = pearson(regression_sums(masked, second))
    assert between[0] == pytest.approx(pearsonr(first[10:, 0], second[10:, 0])[0])
