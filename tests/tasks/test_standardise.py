"""The phenotypes' scaler: pooled statistics from sums, limits, a site in other units (SCIENCE 5.5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import load_tensors

TASK = make_task("standardise", {})


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def modules() -> dict[str, torch.nn.Module]:
    return {"phenotype_standardiser": build_module("phenotype_standardiser", "nano", seed=0)}


def solve(*cohorts: Cohort) -> dict[str, np.ndarray]:
    return TASK.solve(add_sums({c.site: TASK.sums(modules(), view(c)) for c in cohorts}))


def test_three_sites_give_the_pooled_scaler_and_that_is_numpys(make_people):
    sites = [make_people(9 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    sites[1].phenotypes[:] += 100.0
    pooled = concatenate(sites, site="all")
    apart, together = solve(*sites), solve(pooled)
    sums = add_sums({c.site: TASK.sums(modules(), view(c)) for c in sites})
    for name, value in TASK.sums(modules(), view(pooled)).items():
        assert np.allclose(sums[name], value, rtol=1e-12)
    trained = pooled.phenotypes[pooled.row_split == 0].astype(np.float64)
    kept = [k for k in range(82) if k != 7]
    for name, expected in (("mean", np.nanmean), ("deviation", np.nanstd)):
        assert apart[name].dtype == np.float32
        assert np.array_equal(apart[name], together[name])
        assert np.allclose(apart[name][kept], expected(trained[:, kept], axis=0), rtol=1e-6)
    assert (apart["mean"][7], apart["deviation"][7]) == (0.0, 1.0), "a column without values is neutral"


def test_single_constant_and_held_out_values_set_no_scale(make_people):
    cohort = make_people(12, site="a", seed=0)
    train, held = np.flatnonzero(cohort.row_split == 0), np.flatnonzero(cohort.row_split != 0)
    cohort.phenotypes[train, 0] = 33.0
    cohort.phenotypes[train, 1] = np.nan
    cohort.phenotypes[train[0], 1] = 12.0
    cohort.phenotypes[held, 2] = 1e6
    found = solve(cohort)
    assert found["deviation"][:2].tolist() == [1.0, 1.0]
    assert found["mean"][:2].tolist() == [33.0, 12.0]
    assert found["mean"][2] < 100.0


def test_only_rows_with_an_ecg_count(make_people):
    cohort = make_people(12, site="a", seed=0)
    before = solve(cohort)
    cohort.row_ecg[0] = -1
    assert TASK.sums(modules(), view(cohort))["nj"][0] == 7.0
    assert not np.array_equal(solve(cohort)["mean"], before["mean"])


def test_standardised_training_values_have_mean_0_and_sd_1_and_a_site_in_other_units_shows(make_people):
    sites = {name: make_people(30, site=name, seed=i) for i, name in enumerate("ab")}
    sites["b"].phenotypes[:, 3] *= 10.0
    held = modules()
    load_tensors(held["phenotype_standardiser"], solve(*sites.values()))

    def measure(cohort: Cohort, split: str) -> dict[str, float]:
        return TASK.metrics(TASK.metric_sums(held, view(cohort), split=split, seed=0))

    trained = measure(concatenate(list(sites.values()), site="all"), "train")
    assert trained["columns"] == 81.0
    assert "mean/24107" not in trained
    for column in (0, 3, 9):
        assert trained[f"mean/{24100 + column}"] == pytest.approx(0.0, abs=1e-5)
        assert trained[f"sd/{24100 + column}"] == pytest.approx(1.0, abs=1e-5)
    by_site = {name: measure(cohort, "test") for name, cohort in sites.items()}
    assert by_site["a"]["mean/24103"] < -0.8
    assert by_site["b"]["mean/24103"] > 0.8
    assert abs(by_site["a"]["mean/24100"]) < 0.5
    assert by_site["a"]["n_patients"] == 10.0


def test_nobody_gives_zeros_of_the_same_names_and_shapes(make_people):
    nobody = view(empty_cohort(site="nobody", phenotypes=82))
    somebody = view(make_people(9, site="a", seed=0))
    for make in (
        lambda site: TASK.sums(modules(), site),
        lambda site: TASK.metric_sums(modules(), site, split="test", seed=0),
    ):
        empty, full = make(nobody), make(somebody)
        assert {n: v.shape for n, v in empty.items()} == {n: v.shape for n, v in full.items()}
        assert not any(v.any() for v in empty.values())
    assert "columns" not in TASK.metrics(TASK.metric_sums(modules(), nobody, split="test", seed=0))
