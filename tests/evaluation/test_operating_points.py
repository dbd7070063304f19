"""Thresholds and confusion counts from histograms against counts of the rows and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score, roc_curve

from cardionets_core.evaluation import (
    confusion_at,
    nearest_edge,
    predictive_values,
    rates,
    score_histograms,
    threshold_at_sensitivity,
    threshold_at_specificity,
    threshold_of_youden,
)
from cardionets_core.evaluation.histograms import WIDTH


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    label = (rng.random((500, 1)) < 0.3).astype(float)
    return rng.normal(size=(500, 1)) + 1.5 * label - 0.5, label


def test_counts_at_an_edge_are_exact_and_the_rates_are_scikit_learns(scores):
    logit, label = scores
    sums = score_histograms(logit, label)
    threshold = nearest_edge(0.2)
    called = logit[:, 0] >= threshold
    y = label[:, 0]
    found = rates(confusion_at(sums, np.array([threshold])))
    assert found["sensitivity"][0] == pytest.approx(recall_score(y, called), abs=1e-12)
    assert found["specificity"][0] == pytest.approx(recall_score(1 - y, ~called), abs=1e-12)
    assert found["ppv"][0] == pytest.approx(precision_score(y, called), abs=1e-12)
    assert found["npv"][0] == pytest.approx(precision_score(1 - y, ~called), abs=1e-12)
    assert found["f1"][0] == pytest.approx(f1_score(y, called), abs=1e-12)
    assert found["kappa"][0] == pytest.approx(cohen_kappa_score(y, called), abs=1e-12)
    assert found["accuracy"][0] == pytest.approx((called == y).mean(), abs=1e-12)


def test_a_chosen_threshold_reaches_its_target_and_the_next_edge_does_not(scores):
    sums = score_histograms(*scores)
    high = threshold_at_sensitivity(sums, 0.9)
    assert rates(confusion_at(sums, high))["sensitivity"][0] >= 0.9
    assert rates(confusion_at(sums, high + WIDTH))["sensitivity"][0] < 0.9
    low = threshold_at_specificity(sums, 0.95)
    assert rates(confusion_at(sums, low))["specificity"][0] >= 0.95
    assert rates(confusion_at(sums, low - WIDTH))["specificity"][0] < 0.95


def test_youden_is_the_greatest_of_the_roc_curve(scores):
    logit, label = scores
    logit = np.floor(logit / WIDTH) * WIDTH
    sums = score_histograms(logit, label)
    false, true, _ = roc_curve(label[:, 0], logit[:, 0])
    found = rates(confusion_at(sums, threshold_of_youden(sums)))
    assert found["sensitivity"][0] + found["specificity"][0] - 1 == pytest.approx((true - false).max())


def test_extreme_targets_call_all_or_none(scores):
    sums = score_histograms(*scores)
    assert threshold_at_specificity(sums, 0.0)[0] == -np.inf
    assert rates(confusion_at(sums, np.array([-np.inf])))["sensitivity"][0] == 1.0
    nobody = rates(confusion_at(sums, np.array([np.inf])))
    assert nobody["specificity"][0] == 1.0 and np.isnan(nobody["ppv"][0])
    assert threshold_at_sensitivity(sums, 0.0)[0] == np.inf


def test_a_class_that_is_absent_gives_no_threshold(scores):
    logit, label = scores
    healthy = score_histograms(logit, label * 0)
    assert np.isnan(threshold_at_sensitivity(healthy, 0.9)).all()
    assert np.isnan(threshold_of_youden(healthy)).all()
    assert np.isfinite(threshold_at_specificity(healthy, 0.9)).all()
    assert np.isnan(rates(confusion_at(healthy, np.array([np.nan])))["specificity"]).all()


def test_a_threshold_between_edges_is_refused(scores):
    sums = score_histograms(*scores)
    with pytest.raises(ValueError, match="nearest_edge"):
        confusion_at(sums, np.array([0.001]))
    assert abs(nearest_edge(0.001) - 0.001) <= WIDTH / 2
    assert nearest_edge(-np.inf) == -np.inf


def test_predictive_values_at_the_own_prevalence_are_the_counted_ones(scores):
    sums = score_histograms(*scores)
    found = rates(confusion_at(sums, np.array([0.0])))
    prevalence = float(scores[1].mean())
    ppv, npv = predictive_values(found["sensitivity"], found["specificity"], prevalence=prevalence)
    assert ppv[0] == pytest.approx(found["ppv"][0]) and npv[0] == pytest.approx(found["npv"][0])
    rare, _ = predictive_values(np.array([0.9]), np.array([0.9]), prevalence=0.01)
    assert rare[0] == pytest.approx(1 / 12)
    with pytest.raises(ValueError, match="prevalence"):
        predictive_values(np.array([0.9]), np.array([0.9]), prevalence=1.5)
