"""AUROC and AUPRC from added histograms against scikit-learn on the rows, within their stated bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cardionets_core.evaluation import (
    add_sums,
    auprc,
    auprc_bounds,
    auroc,
    auroc_bound,
    bootstrap_histograms,
    coarse_histograms,
    percentile_interval,
    replicate_interval,
    replicate_weights,
    score_histograms,
)
from cardionets_core.evaluation.histograms import BINS, EDGES, WIDTH, bin_of


def make_scores(rows: int, *, columns: int = 2, seed: int = 0, scale: float = 1.5):
    """Logits and labels that go together, a third of the labels missing in the last column."""
    rng = np.random.default_rng(seed)
    label = (rng.random((rows, columns)) < 0.25).astype(float)
    logit = rng.normal(size=(rows, columns)) * scale + 1.2 * label - 1.0
    label[::3, -1] = np.nan
    return logit, label


def on_edges(logit: np.ndarray) -> np.ndarray:
    """Scores moved to the lower edge of their bin, so that binning loses nothing."""
    return np.floor(logit / WIDTH) * WIDTH


def test_pooled_values_equal_the_centralised_ones_where_scores_are_those_of_the_bins():
    logit, label = make_scores(700)
    logit = on_edges(logit)
    parts = [slice(0, 200), slice(200, 210), slice(210, 700)]
    sums = add_sums({str(i): score_histograms(logit[s], label[s]) for i, s in enumerate(parts)})
    for column in range(2):
        known = ~np.isnan(label[:, column])
        y, s = label[known, column], logit[known, column]
        assert auroc(sums)[column] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert auprc(sums)[column] == pytest.approx(average_precision_score(y, s), abs=1e-12)


@given(
    rows=st.integers(2, 200),
    seed=st.integers(0, 2**31 - 1),
    scale=st.sampled_from([0.001, 0.02, 1.5, 30.0]),
    digits=st.sampled_from([1, 3, 12]),
)
@settings(max_examples=40, deadline=None)
def test_any_scores_stay_within_the_stated_bounds(rows, seed, scale, digits):
    logit, label = make_scores(rows, columns=1, seed=seed, scale=scale)
    logit, label = logit.round(digits), np.nan_to_num(label)
    label[0], label[1] = 0.0, 1.0
    sums = score_histograms(logit, label)
    exact = roc_auc_score(label[:, 0], logit[:, 0])
    assert abs(auroc(sums)[0] - exact) <= auroc_bound(sums)[0] + 1e-12
    low, high = auprc_bounds(sums)
    assert low[0] - 1e-12 <= average_precision_score(label[:, 0], logit[:, 0]) <= high[0] + 1e-12
    assert low[0] - 1e-12 <= auprc(sums)[0] <= high[0] + 1e-12


def test_bounds_are_reached():
    """All scores in one bin: the AUROC may be anything, and so may the order."""
    label = np.array([[1.0], [1.0], [0.0]])
    for logit in ([3e-3, 2e-3, 1e-3], [1e-3, 2e-3, 3e-3]):
        sums = score_histograms(np.array(logit)[:, None], label)
        exact = roc_auc_score(label[:, 0], logit)
        assert abs(auroc(sums)[0] - exact) == auroc_bound(sums)[0] == 0.5
    low, high = auprc_bounds(sums)
    assert low[0] == pytest.approx(average_precision_score(label[:, 0], [1.0, 2.0, 3.0]))
    assert high[0] == pytest.approx(1.0)


def test_ordinary_scores_lose_little():
    logit, label = make_scores(4000, columns=1)
    label = np.nan_to_num(label)
    sums = score_histograms(logit, label)
    assert auroc_bound(sums)[0] < 2e-3
    assert auroc(sums)[0] == pytest.approx(roc_auc_score(label[:, 0], logit[:, 0]), abs=1e-4)
    low, high = auprc_bounds(sums)
    assert high[0] - low[0] < 0.02


def test_limits():
    none = score_histograms(np.zeros((0, 3)), np.zeros((0, 3)))
    assert none["positive"].shape == (3, BINS)
    only = score_histograms(np.zeros((4, 1)), np.ones((4, 1)))
    for sums in (none, only):
        values = [auroc(sums), auroc_bound(sums), auprc(sums), *auprc_bounds(sums)]
        assert np.isnan(values).all()
    beyond = score_histograms(np.array([[-np.inf], [-40.0], [40.0], [np.inf]]), np.array([[0, 0, 1, 1.0]]).T)
    assert auroc(beyond) == 1.0
    assert beyond["negative"][0, 0] == beyond["positive"][0, -1] == 2


def test_edges_belong_to_the_bin_above():
    assert np.array_equal(bin_of(EDGES[1:-1]), np.arange(1, BINS))
    assert np.array_equal(bin_of(np.nextafter(EDGES[1:-1], -np.inf)), np.arange(BINS - 1))
    assert np.array_equal(EDGES[1:-1].astype(np.float32), EDGES[1:-1])


def test_strange_values_are_refused():
    with pytest.raises(ValueError, match="label"):
        score_histograms(np.zeros((1, 1)), np.full((1, 1), 2.0))
    with pytest.raises(ValueError, match="NaN"):
        score_histograms(np.full((1, 1), np.nan), np.ones((1, 1)))
    assert score_histograms(np.full((1, 1), np.nan), np.full((1, 1), np.nan))["positive"].sum() == 0


def test_replicates_are_the_histograms_of_the_people_drawn():
    logit, label = make_scores(60)
    patient = np.repeat(np.arange(20), 3)
    found = bootstrap_histograms(logit, label, patient_R=patient, replicates=7, seed=5, site="a")
    weights = np.concatenate(list(replicate_weights(20, replicates=7, seed=5, site="a")))
    for replicate in range(7):
        rows = np.concatenate(
            [np.flatnonzero(patient == q) for q in range(20) for _ in range(int(weights[replicate, q]))]
        )
        expected = coarse_histograms(score_histograms(logit[rows], label[rows]))
        for name in ("positive", "negative"):
            assert np.array_equal(found[name][replicate], expected[name])
    none = bootstrap_histograms(logit[:0], label[:0], patient_R=patient[:0], replicates=4, seed=5, site="a")
    assert none["positive"].shape == (4, 2, 128) and not none["positive"].any()


def test_the_coarse_interval_is_that_of_the_unbinned_bootstrap():
    logit, label = make_scores(300, columns=1)
    label = np.nan_to_num(label)
    patient = np.arange(300)
    replicates = bootstrap_histograms(logit, label, patient_R=patient, replicates=120, seed=1, site="a")
    weights = np.concatenate(list(replicate_weights(300, replicates=120, seed=1, site="a")))
    sums = score_histograms(logit, label)
    for metric, reference in ((auroc, roc_auc_score), (auprc, average_precision_score)):
        exact = [reference(label[:, 0], logit[:, 0], sample_weight=w) for w in weights]
        low, high = replicate_interval(sums, replicates, metric=metric)
        assert [low[0], high[0]] == pytest.approx(percentile_interval(np.array(exact)), abs=0.01)
    undefined = replicate_interval(
        score_histograms(logit, label * 0),
        {n: v * (n == "negative") for n, v in replicates.items()},
        metric=auroc,
    )
    assert np.isnan(undefined).all()


def test_the_interval_lies_around_the_fine_value():
    """Replicates that all equal the whole data: no width, and none of the coarse bins' error."""
    logit, label = make_scores(200, columns=1)
    sums = score_histograms(0.08 * logit, np.nan_to_num(label))
    coarse = coarse_histograms(sums)
    assert abs(auroc(coarse)[0] - auroc(sums)[0]) > 0.01
    replicates = {name: np.repeat(value[None], 5, axis=0) for name, value in coarse.items()}
    low, high = replicate_interval(sums, replicates, metric=auroc)
    assert low[0] == high[0] == auroc(sums)[0]
