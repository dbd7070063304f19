"""The phase ``principal``: sites equal pooled, each cine once, and what its metric means (SCIENCE 8.9)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import TooFewPatientsError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module, input_shape
from cardionets_core.models.solved import CmrPrincipal
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.training import load_tensors

NANO = InputShape(**input_shape("nano")._asdict())
WIDTH = 64
TASK = make_task("principal", {})


class Corner(torch.nn.Module):
    """A tower whose feature is 64 pixels of the cine: the same bits whatever the batch."""

    def forward(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        return cine_BFYX[:, 0, ::4, ::4].flatten(1)


def make_cohort(rows: int, *, site: str = "a", seed: int = 0, split: int = 0) -> Cohort:
    """Cines alone; brightness varies from cine to cine beside the noise."""
    rng = np.random.default_rng(seed)
    cines = rng.integers(0, 120, (rows, 1, 96, 96)) + rng.integers(0, 130, (rows, 1, 1, 1))
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=np.zeros(0, dtype=np.int16),
        ecg_offsets=np.zeros(0, dtype=np.int64),
        ecg_samples=np.zeros(0, dtype=np.int64),
        cines=np.broadcast_to(cines.astype(np.uint8), (rows, 50, 96, 96)),
        row_patient=np.arange(rows),
        row_split=np.full(rows, split, dtype=np.int8),
        row_ecg=np.full(rows, -1),
        row_cine=np.arange(rows),
        phenotypes=np.full((rows, 82), np.nan, dtype=np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=NANO, device=torch.device("cpu"))


def make_modules(components: int = 32) -> dict[str, torch.nn.Module]:
    return {"cmr_encoder": Corner(), "cmr_principal": CmrPrincipal(WIDTH, components)}


def features(cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    batch = cohort.batch(rows, keys=frozenset({"cine"}), shape=NANO)
    return Corner()(batch.cine_BFYX).double().numpy()


def test_sites_equal_pooled_equal_scikit_learn():
    sites = {"a": make_cohort(70, site="a"), "b": make_cohort(25, site="b", seed=1)}
    modules = make_modules()
    apart = add_sums({site: TASK.sums(modules, view(cohort)) for site, cohort in sites.items()})
    pooled = concatenate(list(sites.values()), site="all")
    together = TASK.sums(modules, view(pooled))
    for name, value in together.items():
        assert np.allclose(apart[name], value, rtol=1e-8, atol=1e-8), name
    solved = TASK.solve(apart)
    again = TASK.solve(together)
    # float32 keeps seven digits; the solution in float64 is compared in test_principal.
    assert all(np.allclose(solved[name], again[name], rtol=1e-5, atol=1e-6) for name in solved)

    rows = features(pooled, np.arange(95))
    reference = PCA(n_components=32, svd_solver="full").fit(rows)
    largest = np.abs(reference.components_).argmax(axis=1)
    axes = reference.components_ * np.sign(reference.components_[np.arange(32), largest])[:, None]
    assert np.allclose(solved["components"], axes, atol=1e-5)
    assert np.allclose(solved["variance"], reference.explained_variance_, rtol=1e-5)
    assert np.allclose(solved["mean"], reference.mean_, atol=1e-6)


def test_what_it_solves_fits_the_module_and_centres_the_feature():
    cohort, modules = make_cohort(60), make_modules()
    solved = TASK.solve(TASK.sums(modules, view(cohort)))
    assert all(value.dtype == np.float32 for value in solved.values())
    load_tensors(build_module("cmr_principal", "nano", seed=0), solved)
    load_tensors(modules["cmr_principal"], solved)
    rows = features(cohort, np.arange(60))
    phi = modules["cmr_principal"](torch.from_numpy(rows).float()).detach().numpy()
    assert np.allclose(phi.mean(axis=0), 0.0, atol=1e-5)
    assert np.allclose(np.cov(phi.T), np.diag(solved["variance"]), atol=1e-4)


def test_sigma_is_of_the_first_half_of_the_axes_whatever_the_module_holds():
    cohort = make_cohort(80)
    few, many = (TASK.solve(TASK.sums(make_modules(count), view(cohort))) for count in (32, 48))
    assert many["components"].shape == (48, WIDTH)
    assert np.array_equal(many["components"][:32], few["components"])
    assert many["sigma_squared"] == few["sigma_squared"]
    phi = (features(cohort, np.arange(80)) - few["mean"]) @ few["components"].T
    first, second = np.triu_indices(80, k=1)
    distance = ((phi[first] - phi[second]) ** 2).sum(axis=1)
    assert few["sigma_squared"][0] == pytest.approx(0.25 * distance.mean(), rel=1e-5)


def test_each_training_cine_counts_once():
    cohort = make_cohort(6)
    cohort.row_cine[:] = [0, 0, 1, 2, 2, -1]
    cohort.row_split[3:] = 2
    sums = TASK.sums(make_modules(), view(cohort))
    assert sums["n"] == 2.0
    assert np.array_equal(sums["Sx"], features(cohort, np.array([0, 2])).sum(axis=0))


def test_explained_is_the_share_of_held_out_variance_along_the_axes():
    train, modules = make_cohort(90), make_modules(48)
    solved = TASK.solve(TASK.sums(modules, view(train)))
    load_tensors(modules["cmr_principal"], solved)
    held = {"a": make_cohort(20, site="a", seed=5, split=2), "b": make_cohort(13, site="b", seed=6, split=2)}
    by_site = {
        site: TASK.metric_sums(modules, view(cohort), split="test", seed=0) for site, cohort in held.items()
    }
    found = TASK.metrics(add_sums(by_site))
    rows = np.concatenate([features(cohort, np.arange(len(cohort.row_cine))) for cohort in held.values()])
    covariance = np.cov(rows.T, ddof=0)
    axes = solved["components"].astype(np.float64)
    for name, count in (("explained", 48), ("explained/phi", 32)):
        along = np.trace(axes[:count] @ covariance @ axes[:count].T)
        assert found[name] == pytest.approx(along / np.trace(covariance), rel=1e-6)
    assert 0.0 < found["explained/phi"] < found["explained"] < 1.0
    assert found["n_rows"] == 33.0


def test_axes_that_span_the_feature_explain_all_of_it():
    cohort, modules = make_cohort(90), make_modules(WIDTH)
    load_tensors(modules["cmr_principal"], TASK.solve(TASK.sums(modules, view(cohort))))
    held = TASK.metric_sums(modules, view(make_cohort(15, seed=9, split=1)), split="validation", seed=0)
    assert TASK.metrics(held)["explained"] == pytest.approx(1.0, rel=1e-6)


def test_nobody_gives_zeros_without_running_a_module():
    nobody = view(empty_cohort(site="nobody", phenotypes=82))
    modules = {"cmr_encoder": build_module("cmr_encoder", "nano", seed=0, device="meta")}
    modules["cmr_principal"] = build_module("cmr_principal", "nano", seed=0)
    sums = TASK.sums(modules, nobody)
    some = TASK.sums(make_modules(), view(make_cohort(3)))
    assert {name: value.shape for name, value in sums.items()} == {
        name: value.shape for name, value in some.items()
    }
    measured = TASK.metric_sums(modules, nobody, split="test", seed=0)
    assert not any(value.any() for value in (*sums.values(), *measured.values()))
    assert TASK.primary not in TASK.metrics(measured)
    with pytest.raises(TooFewPatientsError, match="two rows"):
        TASK.solve(sums)
