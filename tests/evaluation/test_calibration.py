"""Brier, ECE and the logistic fit against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from cardionets_core.evaluation import (
    add_sums,
    apply_platt,
    bootstrap_sums,
    brier_score,
    calibration_sums,
    calibration_terms,
    expected_calibration_error,
    fit_logistic,
    score_histograms,
)
from cardionets_core.evaluation.histograms import CENTRES, bin_of


def make_scores(rows: int = 3000, *, slope: float = 0.6, intercept: float = -0.4):
    """Logits whose true log odds are ``intercept + slope * logit``."""
    rng = np.random.default_rng(7)
    logit = rng.normal(size=(rows, 1)) * 2.0
    return logit, (rng.random((rows, 1)) < expit(intercept + slope * logit)).astype(float)


def test_pooled_brier_and_ece_equal_the_centralised_ones():
    logit, label = make_scores(500)
    label[::7] = np.nan
    probability = expit(logit)
    sums = add_sums({n: calibration_sums(probability[s], label[s]) for n, s in
                     (("a", slice(0, 90)), ("b", slice(90, 500)))})  # fmt: skip
    known = ~np.isnan(label[:, 0])
    p, y = probability[known, 0], label[known, 0]
    assert brier_score(sums)[0] == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    error = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (p >= low) & (p < high)
        if inside.any():
            error += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    assert expected_calibration_error(sums)[0] == pytest.approx(error, abs=1e-12)


def test_terms_of_rows_add_up_and_can_be_resampled():
    logit, label = make_scores(40)
    logit, label = np.tile(logit, 2), np.tile(label, 2)
    label[:5, 1] = np.nan
    terms = calibration_terms(expit(logit), label)
    sums = calibration_sums(expit(logit), label)
    for name, value in terms.items():
        assert np.allclose(value.sum(axis=0), sums[name].ravel())
    drawn = bootstrap_sums(terms, np.arange(40), replicates=5, seed=0, site="a")
    errors = expected_calibration_error(drawn)
    assert errors.shape == (5, 2)
    one = {name: value[3] for name, value in drawn.items()}
    assert np.allclose(expected_calibration_error(one), errors[3])


def test_ece_of_perfect_and_of_worst_probabilities():
    certain = np.array([[0.0], [1.0], [1.0]])
    assert expected_calibration_error(calibration_sums(certain, certain)) == 0.0
    assert expected_calibration_error(calibration_sums(1 - certain, certain)) == 1.0
    assert np.isnan(brier_score(calibration_sums(certain[:0], certain[:0])))
    with pytest.raises(ValueError, match="probability"):
        calibration_sums(certain + 0.5, certain)
    with pytest.raises(ValueError, match="probability"):
        calibration_sums(certain * np.nan, certain)


def test_the_fit_on_bins_is_that_of_scikit_learn():
    logit, label = make_scores()
    fit = fit_logistic(score_histograms(logit, label))
    at_centres = CENTRES[bin_of(logit)]
    for scores, tolerance in ((at_centres, 1e-6), (logit, 1e-3)):
        model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(scores, label[:, 0])
        assert fit.slope[0] == pytest.approx(model.coef_[0, 0], abs=tolerance)
        assert fit.intercept[0] == pytest.approx(model.intercept_[0], abs=tolerance)
    assert fit.slope[0] == pytest.approx(0.6, abs=0.1) and fit.intercept[0] == pytest.approx(-0.4, abs=0.15)


def test_the_gradient_is_zero_at_the_fit():
    """The closed form of a maximum: observed and expected counts, and their first moments, agree."""
    logit, label = make_scores()
    sums = score_histograms(logit, label)
    fit = fit_logistic(sums)
    rows = (sums["positive"] + sums["negative"])[0]
    expected = rows * expit(fit.intercept[0] + fit.slope[0] * CENTRES)
    assert expected.sum() == pytest.approx(sums["positive"].sum(), rel=1e-9)
    assert (expected * CENTRES).sum() == pytest.approx((sums["positive"][0] * CENTRES).sum(), rel=1e-9)
    large = rows * expit(fit.in_the_large[0] + CENTRES)
    assert large.sum() == pytest.approx(sums["positive"].sum(), rel=1e-9)


def test_after_platts_map_the_slope_is_one_and_the_intercept_zero():
    logit, label = make_scores()
    mapped = apply_platt(logit, fit_logistic(score_histograms(logit, label)))
    again = fit_logistic(score_histograms(mapped, label))
    assert again.slope[0] == pytest.approx(1.0, abs=2e-3)
    assert again.intercept[0] == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize(
    ("logit", "label"),
    [([-1, -2, 1, 2], [0, 0, 1, 1]), ([1, 2, 3, 3], [1, 1, 0, 0]), ([1, 2, 2, 3], [0, 0, 1, 1]),
     ([1, 1, 1], [0, 1, 1]), ([1, 2], [1, 1]), ([], [])],
)  # fmt: skip
def test_separated_classes_have_no_fit_and_keep_their_scores(logit, label):
    logit, label = np.array(logit, dtype=float)[:, None], np.array(label, dtype=float)[:, None]
    fit = fit_logistic(score_histograms(logit, label))
    assert np.isnan(fit.slope[0]) and np.isnan(fit.intercept[0])
    assert np.isfinite(fit.in_the_large[0]) == (0 < label.sum() < len(label))
    assert np.array_equal(apply_platt(logit, fit), logit)


def test_extreme_scores_converge():
    """A start far from the answer: Newton's full step would leave."""
    logit = np.concatenate([np.full(500, 11.9), np.full(500, -11.9)])[:, None]
    label = (np.arange(1000) % 2)[:, None].astype(float)
    fit = fit_logistic(score_histograms(logit, label))
    assert fit.slope[0] == pytest.approx(0.0, abs=1e-9) and fit.intercept[0] == pytest.approx(0.0, abs=1e-9)


def test_rows_fall_into_fifteen_bins_of_equal_width():
    probability = np.append(np.random.default_rng(2).random(400), [0.0, 1.0])[:, None]
    sums = calibration_sums(probability, np.ones_like(probability))
    counts, _ = np.histogram(probability, bins=np.linspace(0, 1, 16))
    assert np.array_equal(sums["bin_n"][0], counts)
