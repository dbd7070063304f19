"""The scaler from sums: pooled, scikit-learn's, and columns that cannot be scaled (SCIENCE 8.9)."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from cardionets_core.evaluation import add_sums
from cardionets_core.tasks.scaler import scaler_sums, solve_scaler

LEVEL = np.array([150.0, 60.0, -18.0, 0.002])
SPREAD = np.array([30.0, 6.0, 3.0, 0.001])


def make_sites(*, missing: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"a": 50, "b": 9, "c": 80}
    sites = {site: LEVEL + SPREAD * rng.normal(size=(rows, 4)) for site, rows in sizes.items()}
    if missing:
        for values in sites.values():
            values[rng.random(values.shape) < 0.3] = np.nan
    return sites


@pytest.mark.parametrize("shift", [0.0, 100.0, LEVEL], ids=["none", "number", "per column"])
@pytest.mark.parametrize("missing", [False, True])
def test_sites_equal_pooled_equal_scikit_learn(missing, shift):
    sites = make_sites(missing=missing)
    rows = np.concatenate(list(sites.values()))
    found = solve_scaler(add_sums({s: scaler_sums(v, shift=shift) for s, v in sites.items()}), shift=shift)
    pooled = solve_scaler(scaler_sums(rows, shift=shift), shift=shift)
    reference = StandardScaler().fit(rows)  # leaves NaN out, population SD
    for scaler in (found, pooled):
        assert np.allclose(scaler.mean_K, reference.mean_, rtol=1e-8, atol=0)
        # A column far below the shift loses digits to it: 0.001 of 100 squared.
        tolerance = 1e-8 if np.ndim(shift) or shift == 0 else 1e-4
        assert np.allclose(scaler.sd_K, reference.scale_, rtol=tolerance, atol=0)
        assert np.array_equal(scaler.n_K, np.isfinite(rows).sum(axis=0))
    if not missing:
        assert np.allclose(found.sd_K, rows.std(axis=0, ddof=0), rtol=1e-4)
    if np.ndim(shift):
        assert np.allclose(found.standardise(rows), reference.transform(rows), equal_nan=True)


def test_no_second_scaler_is_needed_to_come_back():
    rows = make_sites(missing=True)["a"]
    scaler = solve_scaler(scaler_sums(rows))
    assert np.allclose(scaler.restore(scaler.standardise(rows)), rows, equal_nan=True)
    standard = scaler.standardise(rows)
    assert np.allclose(np.nanmean(standard, axis=0), 0.0, atol=1e-9)
    assert np.allclose(np.nanstd(standard, axis=0), 1.0)


def test_columns_that_cannot_be_scaled_have_sd_1():
    nan = np.nan
    rows = np.array(
        [[nan, 4.0, 150.1, 5.0, 1.0], [nan, nan, 150.1, 5.0, 1.0 + 1e-7], [nan, nan, 150.1, 7.0, 1.0]]
    )
    scaler = solve_scaler(scaler_sums(rows))
    assert scaler.n_K.tolist() == [0.0, 1.0, 3.0, 3.0, 3.0]
    assert scaler.mean_K[:3] == pytest.approx([0.0, 4.0, 150.1])
    assert scaler.sd_K[[0, 1, 2, 4]].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert scaler.sd_K[3] == pytest.approx(np.std([5.0, 5.0, 7.0]))


@pytest.mark.parametrize("level", [150.1, 1e4 + 0.3, 1e7 + 0.7])
def test_a_constant_column_is_constant_at_any_level(level):
    """``Syy/n - mean^2`` of 3,000 equal values is rounding noise that could pass for an SD above 1e-6."""
    sites = {site: scaler_sums(np.full((1000, 1), level)) for site in "abc"}
    assert solve_scaler(add_sums(sites)).sd_K.tolist() == [1.0]


def test_an_empty_site_adds_nothing_and_no_site_is_an_identity():
    rows = make_sites(missing=True)["a"].astype(np.float32)
    alone, empty = scaler_sums(rows), scaler_sums(rows[:0])
    both = add_sums({"a": alone, "b": empty})
    assert all(np.array_equal(both[name], alone[name]) for name in alone)
    nothing = solve_scaler(empty, shift=3.0)
    assert nothing.mean_K.tolist() == [0.0] * 4
    assert nothing.sd_K.tolist() == [1.0] * 4


def test_one_value_has_no_sd_even_if_a_secure_sum_rounds_its_square():
    sums = {"nj": np.array([1.0]), "Sy": np.array([4.0]), "Syy": np.array([16.0 + 1e-3])}
    assert solve_scaler(sums).sd_K.tolist() == [1.0]
