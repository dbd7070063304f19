"""The global prevalence: counts of training rows, added over sites (SCIENCE 4, 5.5, 8.9)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import load_tensors

TASK = make_task("prevalence", {})


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def test_three_sites_give_the_pooled_prior(make_people):
    sites = [make_people(9 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    sites[2].diseases[:, 4] = np.nan
    pooled = concatenate(sites, site="all")
    apart = TASK.solve(add_sums({c.site: TASK.sums({}, view(c)) for c in sites}))
    together = TASK.solve(TASK.sums({}, view(pooled)))
    assert all(np.array_equal(apart[name], together[name]) for name in ("logit", "log_share"))
    label = pooled.diseases[pooled.row_split == 0]
    for d in range(5):
        ill, well = (label[:, d] == 1).sum(), (label[:, d] == 0).sum()
        assert apart["logit"][d] == pytest.approx(math.log((ill + 0.5) / (well + 0.5)), rel=1e-6)
    counts = (label[:, 5:] == 1).sum(axis=0)
    assert np.allclose(np.exp(apart["log_share"]), (counts + 0.5) / (counts.sum() + 1.5), rtol=1e-6)
    load_tensors(build_module("screening_prior", "nano", seed=0), apart)


def test_held_out_rows_and_rows_without_an_ecg_do_not_count(make_people):
    cohort = make_people(12, site="a", seed=0)
    before = TASK.sums({}, view(cohort))
    cohort.diseases[cohort.row_split != 0, 0] = 1.0
    assert all(np.array_equal(value, before[name]) for name, value in TASK.sums({}, view(cohort)).items())
    cohort.row_ecg[0] = -1
    assert TASK.sums({}, view(cohort))["known"][0] == before["known"][0] - 1


def test_nobody_ill_and_nobody_known_have_finite_log_odds():
    none = empty_cohort(site="nobody", phenotypes=82)
    found = TASK.solve(TASK.sums({}, view(none)))
    assert found["logit"].tolist() == [0.0] * 5
    assert np.allclose(found["log_share"], math.log(1 / 3))


def test_a_site_reports_its_own_prevalence_over_rows_and_over_people(make_people):
    cohort = make_people(12, site="a", seed=0)
    rows = np.flatnonzero(cohort.row_split == 2)
    assert len(rows) == 8
    # Four people: one is ill in both recordings, one has a second recording that is not assessed.
    cohort.diseases[rows, 0] = [1, 1, 0, 0, 0, np.nan, 0, 0]
    cohort.diseases[rows, 5:] = np.nan
    cohort.diseases[rows[:2], 5:] = [0, 0, 1]
    found = TASK.metrics(TASK.metric_sums({}, view(cohort), split="test", seed=0))
    assert found["known/cad"] == 7.0
    assert found["prevalence/cad"] == pytest.approx(2 / 7)
    assert found["prevalence_people/cad"] == pytest.approx(1 / 4)
    assert found["subtype_share/hcm"] == 1.0
    assert found["n_patients"] == 4.0
    cohort.diseases[rows, :5] = 0.0
    assert TASK.metrics(TASK.metric_sums({}, view(cohort), split="test", seed=0))["diseases"] == 0.0


def test_shapes_do_not_depend_on_the_data(make_people):
    nobody, somebody = view(empty_cohort(site="n", phenotypes=82)), view(make_people(9, site="a", seed=0))
    empty = TASK.metric_sums({}, nobody, split="test", seed=0)
    full = TASK.metric_sums({}, somebody, split="test", seed=0)
    assert {n: v.shape for n, v in empty.items()} == {n: v.shape for n, v in full.items()}
    assert not any(v.any() for v in empty.values())
    assert TASK.metrics(empty) == {"n_rows": 0.0, "n_patients": 0.0}
