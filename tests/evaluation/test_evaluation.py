"""Pooled metrics from sums equal centralised ones (SCIENCE 8.10); the bootstrap adds over sites."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error as sklearn_mae
from sklearn.metrics import mean_squared_error, r2_score

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.evaluation import (
    add_sums,
    bootstrap_sums,
    mean_absolute_error,
    measured_columns,
    pearson,
    percentile_interval,
    r_squared,
    regression_sums,
    replicate_weights,
    root_mean_square_error,
)
from cardionets_core.evaluation.regression import row_terms


def make_columns(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three columns like end-diastolic volume (mL), ejection fraction (%), strain (%)."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(rows, 3)) * [30.0, 6.0, 3.0] + [150.0, 60.0, -20.0]
    return target, target + rng.normal(size=(rows, 3)) * [20.0, 5.0, 2.0]


def test_pooled_metrics_equal_the_centralised_ones():
    target, predicted = make_columns(301)
    parts = {"c": slice(0, 100), "a": slice(100, 107), "b": slice(107, 301)}
    sums = add_sums({site: regression_sums(target[s], predicted[s]) for site, s in parts.items()})
    for column in range(3):
        y, p = target[:, column], predicted[:, column]
        assert r_squared(sums)[column] == pytest.approx(r2_score(y, p), abs=1e-9)
        assert mean_absolute_error(sums)[column] == pytest.approx(sklearn_mae(y, p), rel=1e-9)
        rmse = np.sqrt(mean_squared_error(y, p))
        assert root_mean_square_error(sums)[column] == pytest.approx(rmse, rel=1e-9)
        assert pearson(sums)[column] == pytest.approx(pearsonr(y, p)[0], abs=1e-9)


def test_missing_values_are_left_out():
    target, predicted = make_columns(60)
    target[::3, 1] = np.nan
    kept = np.isfinite(target[:, 1])
    sums = regression_sums(target, predicted)
    assert sums["n"].tolist() == [60.0, 40.0, 60.0]
    assert r_squared(sums)[1] == pytest.approx(r2_score(target[kept, 1], predicted[kept, 1]), abs=1e-9)


def test_limits_are_nan_and_raise_no_warning():
    target, predicted = make_columns(12)
    target[:, 0] = np.nan
    target[:, 1] = 61.3
    sums = regression_sums(target, predicted)
    assert np.isnan(r_squared(sums)[:2]).all()
    assert np.isnan(pearson(sums)[:2]).all()
    assert measured_columns(sums).tolist() == [False, False, True]
    nothing = regression_sums(target[:0], predicted[:0])
    assert np.isnan(mean_absolute_error(nothing)).all()
    assert not measured_columns(nothing).any()
    single = regression_sums(target[:1], predicted[:1])
    assert np.isnan(r_squared(single)).all()
    assert not measured_columns(regression_sums(target[:9], predicted[:9])).any()


@given(patients=st.integers(1, 50), replicates=st.integers(1, 30), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_each_replicate_draws_as_many_people_as_there_are(patients, replicates, seed):
    drawn = np.concatenate(list(replicate_weights(patients, replicates=replicates, seed=seed, site="a")))
    assert drawn.shape == (replicates, patients)
    assert (drawn.sum(axis=1) == patients).all()


def test_draws_do_not_depend_on_the_block_and_differ_between_sites(monkeypatch):
    whole = np.concatenate(list(replicate_weights(7, replicates=20, seed=1, site="a")))
    monkeypatch.setattr("cardionets_core.evaluation.bootstrap.CHUNK_VALUES", 21)
    blocks = list(replicate_weights(7, replicates=20, seed=1, site="a"))
    assert len(blocks) == 7
    assert np.array_equal(np.concatenate(blocks), whole)
    assert not np.array_equal(
        np.concatenate(list(replicate_weights(7, replicates=20, seed=1, site="b"))), whole
    )


def test_all_rows_of_a_person_are_drawn_together():
    terms = {"n": np.ones((5, 1)), "Sy": np.array([[1.0], [10.0], [100.0], [1000.0], [10000.0]])}
    patient = np.array([4, 4, 9, 9, 2])
    found = bootstrap_sums(terms, patient, replicates=50, seed=0, site="a")
    per_person = np.array([10000.0, 11.0, 1100.0])
    weights = np.concatenate(list(replicate_weights(3, replicates=50, seed=0, site="a")))
    assert np.allclose(found["Sy"][:, 0], weights @ per_person)
    assert np.allclose(found["n"][:, 0], weights @ np.array([1.0, 2.0, 2.0]))
    empty = bootstrap_sums({"n": np.ones((0, 2))}, patient[:0], replicates=3, seed=0, site="a")
    assert np.array_equal(empty["n"], np.zeros((3, 2)))


def test_the_interval_has_the_width_of_theory():
    target, predicted = make_columns(400)
    terms = row_terms(target, predicted)
    found = bootstrap_sums(terms, np.arange(400), replicates=1000, seed=0, site="a")
    low, high = percentile_interval(mean_absolute_error(found)[:, 0])
    error = np.abs(target - predicted)[:, 0]
    expected = 2 * 1.96 * error.std() / 20
    assert low < error.mean() < high
    assert high - low == pytest.approx(expected, rel=0.1)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_sums_are_added_in_the_order_of_the_names():
    rng = np.random.default_rng(0)
    by_site = {site: {"x": rng.normal(size=100) * 10.0**scale} for scale, site in enumerate("dbca")}
    backwards = dict(reversed(list(by_site.items())))
    assert np.array_equal(add_sums(by_site)["x"], add_sums(backwards)["x"])


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"x": np.zeros(3)}, "y is absent"),
        ({"x": np.zeros(3), "y": np.zeros(1), "z": np.zeros(1)}, "z is unknown"),
        ({"x": np.zeros(4), "y": np.zeros(1)}, "shape"),
        ({"x": np.zeros(3), "y": np.array([np.nan])}, "not finite"),
    ],
)
def test_sums_that_do_not_fit_are_refused_by_site(other, fault):
    good = {"x": np.zeros(3), "y": np.zeros(1)}
    with pytest.raises(ReplyRefusedError, match=f"site b .*{fault}"):
        add_sums({"a": good, "b": other})
    with pytest.raises(ValueError, match="no site"):
        add_sums({})
