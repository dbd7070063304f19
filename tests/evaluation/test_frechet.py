"""Frechet distance from added moments against the direct computation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cardionets_core.evaluation import add_sums, feature_moments, frechet_distance


def direct(first: np.ndarray, second: np.ndarray) -> float:
    c1, c2 = np.cov(first.T), np.cov(second.T)
    gap = first.mean(axis=0) - second.mean(axis=0)
    return float(gap @ gap + np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2))))


def make_features(rows: int, width: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) * scale + shift


def test_added_moments_give_the_direct_distance():
    first, second = make_features(200, 12, seed=0), make_features(150, 12, seed=1, scale=1.3, shift=3.0)
    moments = add_sums({"a": feature_moments(first[:30]), "b": feature_moments(first[30:])})
    expected = direct(first, second)
    assert frechet_distance(moments, feature_moments(second)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(feature_moments(second), moments) == pytest.approx(expected, rel=1e-9)


def test_fewer_cases_than_features():
    """Rank-deficient: the root's trace is the nuclear norm of the product of the centred factors."""
    first, second = make_features(8, 40, seed=2), make_features(9, 40, seed=3)
    factor1 = (first - first.mean(axis=0)) / np.sqrt(7)
    factor2 = (second - second.mean(axis=0)) / np.sqrt(8)
    gap = first.mean(axis=0) - second.mean(axis=0)
    expected = gap @ gap + (factor1**2).sum() + (factor2**2).sum()
    expected -= 2 * np.linalg.svd(factor1 @ factor2.T, compute_uv=False).sum()
    found = frechet_distance(feature_moments(first), feature_moments(second))
    assert found == pytest.approx(expected, rel=1e-6)


def test_closed_forms():
    first = make_features(300, 5, seed=4)
    moments = feature_moments(first)
    size = np.trace(np.cov(first.T))
    assert frechet_distance(moments, moments) == pytest.approx(0.0, abs=1e-6 * size)
    shifted = frechet_distance(moments, feature_moments(first + 2.0))
    assert shifted == pytest.approx(5 * 4.0, rel=1e-6)
    # Twice the spread around the same mean: tr(C) (2 - 1)^2.
    wider = first.mean(axis=0) + 2 * (first - first.mean(axis=0))
    assert frechet_distance(moments, feature_moments(wider)) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_cases_have_no_distance(rows):
    features = make_features(20, 3, seed=5)
    assert np.isnan(frechet_distance(feature_moments(features[:rows]), feature_moments(features)))
