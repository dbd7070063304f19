"""Principal components from sums: pooled, numpy's and scikit-learn's, and what sigma means (SCIENCE 8.9)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from cardionets_core.errors import TooFewPatientsError
from cardionets_core.evaluation import add_sums
from cardionets_core.tasks.principal import default_components, feature_sums, solve_principal

WIDTH = 12


def make_sites() -> dict[str, np.ndarray]:
    """Three sites with their own means; a falling spectrum, so that axes are well defined."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    scale = 4.0 * 0.7 ** np.arange(WIDTH)
    return {
        site: 3.0 + offset + (rng.normal(size=(rows, WIDTH)) * scale) @ rotation
        for site, rows, offset in (("a", 40, 0.0), ("b", 7, 1.5), ("c", 90, -0.5))
    }


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("shift", [0.0, 3.0, np.linspace(2, 4, WIDTH)], ids=["none", "number", "vector"])
def test_sites_equal_pooled_equal_scikit_learn(shift):
    sites = make_sites()
    rows = np.concatenate(list(sites.values()))
    apart = solve_principal(
        add_sums({site: feature_sums(x, shift=shift) for site, x in sites.items()}), shift=shift
    )
    together = solve_principal(feature_sums(rows))
    reference = PCA(n_components=WIDTH // 2, svd_solver="full").fit(rows)
    largest = np.abs(reference.components_).argmax(axis=1)
    signs = np.sign(reference.components_[np.arange(WIDTH // 2), largest])
    axes = reference.components_ * signs[:, None]

    for found in (apart, together):
        assert found.components_PD.shape == (WIDTH // 2, WIDTH)
        assert relative(found.components_PD, axes) < 1e-8
        assert relative(found.eigenvalues_D[: WIDTH // 2], reference.explained_variance_) < 1e-8
        assert relative(found.mean_D, reference.mean_) < 1e-8
        assert relative(found.project(rows), (rows - reference.mean_) @ axes.T) < 1e-8
        assert found.n == 137.0
    assert apart.sigma_squared == pytest.approx(together.sigma_squared, rel=1e-8)
    assert relative(apart.eigenvalues_D, np.sort(np.linalg.eigvalsh(np.cov(rows.T)))[::-1]) < 1e-8


def test_twice_the_trace_is_the_mean_squared_distance_over_all_patients():
    rows = np.concatenate(list(make_sites().values()))
    found = solve_principal(feature_sums(rows))
    first, second = np.triu_indices(len(rows), k=1)
    distances = ((rows[first] - rows[second]) ** 2).sum(axis=1)
    assert 2.0 * found.eigenvalues_D.sum() == pytest.approx(distances.mean(), rel=1e-10)
    phi = found.project(rows)
    kept = ((phi[first] - phi[second]) ** 2).sum(axis=1)
    assert found.sigma_squared == pytest.approx(0.25 * kept.mean(), rel=1e-10)


def test_pairs_within_sites_alone_would_give_another_sigma():
    sites = make_sites()
    pooled = solve_principal(add_sums({site: feature_sums(x) for site, x in sites.items()})).sigma_squared
    assert solve_principal(feature_sums(sites["a"])).sigma_squared < 0.98 * pooled


def test_axes_are_orthonormal_sorted_and_of_fixed_sign():
    found = solve_principal(feature_sums(make_sites()["c"]), components=WIDTH)
    assert np.allclose(found.components_PD @ found.components_PD.T, np.eye(WIDTH), atol=1e-12)
    assert (np.diff(found.eigenvalues_D) <= 0).all()
    largest = np.abs(found.components_PD).argmax(axis=1)
    assert (found.components_PD[np.arange(WIDTH), largest] > 0).all()
    mirrored = solve_principal(feature_sums(-make_sites()["c"]), components=WIDTH)
    assert np.allclose(mirrored.components_PD, found.components_PD, atol=1e-9)


def test_tied_loadings_take_the_sign_of_the_first():
    line = np.linspace(-1, 1, 9)[:, None]
    for direction in ([1.0, -1.0], [-1.0, 1.0 + 1e-12]):
        found = solve_principal(feature_sums(line * direction))
        assert np.allclose(found.components_PD, np.array([[1.0, -1.0]]) / np.sqrt(2.0))


def test_the_projection_is_one_centred_linear_map():
    rows = make_sites()["c"]
    found = solve_principal(feature_sums(rows))
    assert np.allclose(rows @ found.components_PD.T + found.bias_P, found.project(rows), atol=1e-12)
    assert np.allclose(found.project(rows).mean(axis=0), 0.0, atol=1e-12)
    assert np.allclose(np.cov(found.project(rows).T), np.diag(found.eigenvalues_D[: WIDTH // 2]), atol=1e-10)


def test_sigma_does_not_depend_on_the_number_of_axes_kept():
    sums = feature_sums(make_sites()["a"])
    assert solve_principal(sums, components=2).sigma_squared == solve_principal(sums).sigma_squared


@pytest.mark.parametrize(("width", "expected"), [(768, 128), (256, 128), (64, 32), (3, 1), (1, 1)])
def test_default_number_of_components(width, expected):
    assert default_components(width) == expected


@pytest.mark.parametrize("level", [0.0, 1e4])
def test_axes_without_variance_are_zeros_not_noise(level):
    rng = np.random.default_rng(1)
    rows = level + rng.normal(size=(4, 10))  # rank 3
    found = solve_principal(feature_sums(rows, shift=level), shift=level)
    assert (found.eigenvalues_D[:3] > 0).all()
    assert not found.eigenvalues_D[3:].any()
    assert not found.components_PD[3:].any()
    constant = solve_principal(feature_sums(np.full((20, 10), level + 0.1)))
    assert constant.sigma_squared == 0.0
    assert not constant.components_PD.any()


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_are_refused(rows):
    with pytest.raises(TooFewPatientsError, match="two rows"):
        solve_principal(feature_sums(np.zeros((rows, 4))))


@pytest.mark.parametrize("components", [0, 5])
def test_an_impossible_number_of_components_is_refused(components):
    with pytest.raises(ValueError, match="components of 4"):
        solve_principal(feature_sums(np.eye(4)), components=components)


@given(cut=st.integers(0, 40), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_sums_add_wherever_the_rows_are_cut(cut, seed):
    rows = np.random.default_rng(seed).normal(size=(40, 5)).astype(np.float32)
    whole = feature_sums(rows)
    parts = add_sums({"a": feature_sums(rows[:cut]), "b": feature_sums(rows[cut:])})
    for name, value in whole.items():
        assert value.dtype == np.float64
        assert np.allclose(parts[name], value, rtol=1e-12, atol=1e-12)
