"""Rows by site: pools from sums, and external sites that never train."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

from cardionets_core.errors import OrderRefusedError
from cardionets_core.evaluation import left_out_rows, r_squared, regression_sums, site_rows

SIZES = {"b": 30, "a": 20, "z": 25, "c": 40}


@pytest.fixture
def hospitals():
    rng = np.random.default_rng(0)
    found = {}
    for shift, (site, size) in enumerate(SIZES.items()):
        target = rng.normal(size=(size, 1)) + shift
        found[site] = (target, target + 0.5 * rng.normal(size=(size, 1)))
    return found


def metrics(sums):
    return {"n": float(sums["n"][0]), "r2": float(r_squared(sums)[0])}


def central(hospitals, sites):
    y, p = (np.concatenate([hospitals[s][side] for s in sites])[:, 0] for side in (0, 1))
    return {"n": float(len(y)), "r2": pytest.approx(r2_score(y, p), abs=1e-9)}


def test_every_row_is_the_centralised_metric_of_its_sites(hospitals):
    sums = {site: regression_sums(*rows) for site, rows in hospitals.items()}
    rows = site_rows(sums, metrics, external=["z"], trained=["a", "b", "c"])
    expected = [("pooled", "", "abc"), ("site", "a", "a"), ("site", "b", "b"), ("site", "c", "c"),
                ("without", "a", "bc"), ("without", "b", "ac"), ("without", "c", "ab"),
                ("external", "z", "z")]  # fmt: skip
    assert [(row.kind, row.site) for row in rows] == [(kind, site) for kind, site, _ in expected]
    for row, (_, _, sites) in zip(rows, expected, strict=True):
        assert row.metrics == central(hospitals, sites)


def test_leave_one_site_out_counts_every_patient_once(hospitals):
    sums = {site: regression_sums(*rows) for site, rows in hospitals.items()}
    rows = left_out_rows(sums, metrics, trained={site: set(SIZES) - {site} for site in SIZES})
    assert [(row.kind, row.site) for row in rows] == [
        *(("left-out", site) for site in "abcz"),
        ("left-out-pooled", ""),
    ]
    assert rows[-1].metrics == central(hospitals, "abcz")
    assert rows[0].metrics == central(hospitals, "a")


def test_a_site_that_trained_is_not_external(hospitals):
    sums = {site: regression_sums(*rows) for site, rows in hospitals.items()}
    with pytest.raises(OrderRefusedError, match="z trained"):
        site_rows(sums, metrics, external=["z"], trained=["a", "z"])
    with pytest.raises(OrderRefusedError, match="a trained"):
        left_out_rows({"a": sums["a"]}, metrics, trained={"a": ["a", "b"]})


def test_one_site_and_only_external_sites(hospitals):
    sums = {"a": regression_sums(*hospitals["a"])}
    assert [row.kind for row in site_rows(sums, metrics)] == ["pooled", "site"]
    assert [row.kind for row in site_rows(sums, metrics, external=["a"])] == ["external"]
    assert site_rows({}, metrics) == [] and left_out_rows({}, metrics, trained={}) == []
