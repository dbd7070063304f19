"""DeLong by midranks against all pairs, scikit-learn, and clusters against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cardionets_core.evaluation import auroc_difference, auroc_interval, delong


def by_pairs(score_MR, label_R, patient_R):
    """Components from all pairs; covariance by summing over people, one at a time."""
    ill, well = score_MR[:, label_R == 1], score_MR[:, label_R == 0]
    wins = (ill[:, :, None] > well[:, None, :]) + 0.5 * (ill[:, :, None] == well[:, None, :])
    value = wins.mean(axis=(1, 2))
    part_p, part_n = wins.mean(axis=2) - value[:, None], wins.mean(axis=1) - value[:, None]
    owner_p, owner_n = patient_R[label_R == 1], patient_R[label_R == 0]
    people = np.unique(patient_R)
    models, p, n = len(score_MR), ill.shape[1], well.shape[1]
    with_p, with_n = len(np.unique(owner_p)), len(np.unique(owner_n))
    covariance = np.zeros((models, models))
    for person in people:
        a, b = part_p[:, owner_p == person].sum(1), part_n[:, owner_n == person].sum(1)
        covariance += with_p / (with_p - 1) * np.outer(a, a) / p**2
        covariance += with_n / (with_n - 1) * np.outer(b, b) / n**2
        between = np.outer(a, b) / (p * n)
        covariance += len(people) / (len(people) - 1) * (between + between.T)
    return value, covariance


@given(rows=st.integers(6, 60), seed=st.integers(0, 2**31 - 1), digits=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_estimate_and_covariance_are_those_of_all_pairs(rows, seed, digits):
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(rows) % 3 == 0).astype(float)
    score = (rng.normal(size=(3, rows)) + label).round(digits)
    found = delong(score, label)
    value, covariance = by_pairs(score, label, np.arange(rows))
    assert found.auroc_M == pytest.approx([roc_auc_score(label, s) for s in score], abs=1e-12)
    assert found.auroc_M == pytest.approx(value, abs=1e-12)
    assert np.allclose(found.covariance_MM, covariance, atol=1e-12)


def test_one_row_a_person_is_delong_with_sample_covariances():
    rng = np.random.default_rng(0)
    label = (np.arange(50) % 4 == 0).astype(float)
    score = rng.normal(size=(2, 50)) + label
    ill, well = score[:, label == 1], score[:, label == 0]
    wins = (ill[:, :, None] > well[:, None, :]).astype(float)
    expected = np.cov(wins.mean(axis=2)) / ill.shape[1] + np.cov(wins.mean(axis=1)) / well.shape[1]
    assert np.allclose(delong(score, label).covariance_MM, expected, atol=1e-14)


def test_rows_of_a_person_are_no_independent_witnesses():
    rng = np.random.default_rng(1)
    label = (rng.random(80) < 0.4).astype(float)
    score = rng.normal(size=80) + label
    once = delong(score[None], label)
    five = delong(np.repeat(score, 5)[None], np.repeat(label, 5), patient_R=np.repeat(np.arange(80), 5))
    assert five.auroc_M[0] == pytest.approx(once.auroc_M[0])
    assert five.covariance_MM[0, 0] == pytest.approx(once.covariance_MM[0, 0], rel=1e-9)
    naive = delong(np.repeat(score, 5)[None], np.repeat(label, 5))
    assert naive.covariance_MM[0, 0] < 0.25 * once.covariance_MM[0, 0]


def test_people_with_rows_of_both_classes():
    rng = np.random.default_rng(2)
    label = (rng.random(60) < 0.4).astype(float)
    patient = rng.integers(0, 15, size=60)
    score = rng.normal(size=(2, 60)) + label
    _, covariance = by_pairs(score, label, patient)
    assert np.allclose(delong(score, label, patient_R=patient).covariance_MM, covariance, atol=1e-14)


def test_the_variance_is_that_of_repeated_studies():
    rng = np.random.default_rng(3)
    label = np.repeat([1.0, 0.0], [40, 60])
    estimates, variances = [], []
    for _ in range(400):
        found = delong((rng.normal(size=100) + label)[None], label)
        estimates.append(found.auroc_M[0])
        variances.append(found.covariance_MM[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(estimates), rel=0.2)


def test_p_values_of_equally_good_models_are_uniform():
    rng = np.random.default_rng(4)
    label = np.repeat([1.0, 0.0], [40, 60])
    p = []
    for _ in range(400):
        shared = rng.normal(size=100) + label
        p.append(auroc_difference(delong(shared + rng.normal(size=(2, 100)), label)).p_value)
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)


def test_difference_is_antisymmetric_and_knows_equal_models():
    rng = np.random.default_rng(5)
    label = (np.arange(60) % 2).astype(float)
    score = rng.normal(size=(2, 60)) + label
    found = delong(np.vstack([score, np.exp(score[:1])]), label)
    there, back = auroc_difference(found), auroc_difference(found, first=1, second=0)
    assert there.difference == -back.difference and there.p_value == back.p_value and there.z == -back.z
    same = auroc_difference(found, first=0, second=2)
    assert same.difference == 0.0 and same.p_value == 1.0 and np.isnan(same.z)


def test_interval_and_limits():
    rng = np.random.default_rng(6)
    label = (np.arange(60) % 2).astype(float)
    found = delong((rng.normal(size=60) + label)[None], label)
    low, high = auroc_interval(found)
    assert 0 < low < found.auroc_M[0] < high < 1
    perfect = delong(label[None], label)
    assert perfect.auroc_M[0] == 1.0 and np.isnan(auroc_interval(perfect)).all()
    for labels in (np.zeros(4), np.ones(4), np.full(4, np.nan)):
        assert np.isnan(delong(np.arange(4.0)[None], labels).auroc_M).all()
    single = delong(np.arange(4.0)[None], np.array([0, 0, 0, 1.0]))
    assert single.auroc_M[0] == 1.0 and np.isnan(single.covariance_MM).all()
    assert np.isnan(auroc_difference(delong(np.zeros((2, 2)), np.array([0, 1.0]))).p_value)


def test_rows_without_a_label_do_not_count():
    score, label = np.array([[0.1, 0.9, np.nan, 0.3, 0.7]]), np.array([0, 1, np.nan, 1, 0])
    kept = ~np.isnan(label)
    assert delong(score, label).auroc_M == delong(score[:, kept], label[kept]).auroc_M
    with pytest.raises(ValueError, match="NaN"):
        delong(score, np.zeros(5))
    with pytest.raises(ValueError, match="label"):
        delong(score, np.full(5, 3.0))
