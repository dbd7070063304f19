"""Random effects against closed forms of equal variances, a plain re-computation, and simulated sites."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from cardionets_core.evaluation import from_logit, logit_auroc, random_effects


def test_equal_variances_have_closed_forms():
    """tau2 is the excess of the sample variance; the interval is that of Student's one-sample test."""
    estimate, v = np.array([0.3, 0.9, 1.4, 0.2, 0.8]), 0.04
    found = random_effects(estimate, np.full(5, v))
    assert found.estimate == pytest.approx(estimate.mean())
    assert found.tau2 == pytest.approx(estimate.var(ddof=1) - v)
    interval = ttest_1samp(estimate, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.q == pytest.approx(4 * estimate.var(ddof=1) / v)
    assert found.i2 == pytest.approx(1 - v / estimate.var(ddof=1))
    half = 3.182446305 * np.sqrt(found.tau2 + found.standard_error**2)
    assert found.predicted_high - found.estimate == pytest.approx(half)


def test_unequal_variances_satisfy_the_moment_equation():
    """DerSimonian and Laird: the expected Q under the estimated tau2 is the observed Q."""
    rng = np.random.default_rng(0)
    estimate, variance = rng.normal(size=7), rng.uniform(0.05, 0.4, size=7)
    found = random_effects(estimate, variance, never_narrower=False)
    assert found.tau2 > 0
    w = 1 / variance
    scatter = np.diag(w) - np.outer(w, w) / w.sum()
    assert np.trace(scatter @ np.diag(variance + found.tau2)) == pytest.approx(estimate @ scatter @ estimate)
    w = 1 / (variance + found.tau2)
    mean = np.average(estimate, weights=w)
    assert found.estimate == pytest.approx(mean)
    error2 = np.average((estimate - mean) ** 2, weights=w) / 6
    assert found.standard_error == pytest.approx(np.sqrt(error2))


def test_agreeing_sites_have_no_variance_between_and_no_false_certainty():
    estimate, variance = np.array([0.5, 0.5001, 0.4999]), np.array([0.1, 0.2, 0.1])
    found = random_effects(estimate, variance)
    assert found.tau2 == found.i2 == 0.0 and found.q_p_value > 0.99
    assert found.standard_error == pytest.approx(np.sqrt(1 / (1 / variance).sum()))
    bare = random_effects(estimate, variance, never_narrower=False)
    assert bare.standard_error < 0.01 * found.standard_error


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        variance = rng.uniform(0.02, 0.3, size=5)
        estimate = rng.normal(0.7, 0.3, size=5) + rng.normal(size=5) * np.sqrt(variance)
        found = random_effects(estimate, variance)
        covered += found.low <= 0.7 <= found.high
    assert 0.93 < covered / 500 < 0.99


def test_few_and_unusable_sites():
    one = random_effects(np.array([0.4, np.nan, 0.3]), np.array([0.04, 0.1, 0.0]))
    assert one.sites == 1 and one.estimate == 0.4 and one.tau2 == 0.0
    assert one.high == pytest.approx(0.4 + 1.959963985 * 0.2)
    assert np.isnan(one.predicted_low) and np.isnan(one.q_p_value)
    none = random_effects(np.array([np.nan]), np.array([0.1]))
    assert none.sites == 0 and np.isnan([none.estimate, none.low, none.high, none.tau2, none.i2]).all()
    two = random_effects(np.array([0.0, 1.0]), np.array([0.1, 0.1]))
    assert np.isnan(two.predicted_low) and np.isfinite(two.low)


def test_the_logit_scale_and_back():
    value, variance = logit_auroc(np.array([0.8, 1.0, np.nan]), np.array([0.0016, 0.0, 0.1]))
    assert from_logit(value[0]) == pytest.approx(0.8) and np.isnan(value[1:]).all()
    step = 1e-6
    slope = (logit_auroc(np.array([0.8 + step]), np.array([1.0]))[0][0] - value[0]) / step
    assert variance[0] == pytest.approx(0.0016 * slope**2, rel=1e-4) and np.isnan(variance[1:]).all()
