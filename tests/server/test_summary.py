"""The summary says what the history holds, and makes nothing up."""

import json
import math

import numpy as np
import pytest
from scipy.special import expit, logit

from cardionets_core.config.study import Study
from cardionets_core.evaluation.images import IMAGE_DEFINITION
from server.report import finite, result_of
from server.summary import meta_analysis, summary_of, value_rows


def entry(task, primary, pooled, *, sites=None, external=None, phase=0):
    rows = [{"site": site, "metrics": metrics} for site, metrics in (sites or {}).items()]
    test = {"pooled": pooled, "sites": rows, "external": external or {}}
    return {
        "phase": phase,
        "task": task,
        "primary": primary,
        "higher_is_better": True,
        "round": 1,
        "test": test,
    }


def auroc(value, error):
    return {"auroc/cad": value, "auroc_se/cad": error, "n_patients": 40.0}


def test_a_value_stands_for_the_pool_each_site_and_each_external_site():
    test = entry(
        "phenotype",
        "r2_mean",
        {"r2_mean": 0.3, "r2_mean_low": 0.2, "r2_mean_high": 0.4, "n_patients": 50.0},
        sites={"a": {"r2_mean": 0.1, "n_patients": 20.0}, "b": {"n_patients": 2.0}},
        external={"x": {"r2_mean": 0.05, "n_patients": 9.0}},
    )["test"]
    test["sites"].append({"site": "c", "code": "late"})
    pool, site, external = value_rows(test, "r2_mean")
    assert (pool["kind"], pool["low"], pool["high"], pool["patients"]) == ("pooled", 0.2, 0.4, 50.0)
    assert (site["kind"], site["site"], site["low"], site["interval"]) == ("site", "a", None, "")
    assert (external["kind"], external["site"], external["value"]) == ("external", "x", 0.05)


def test_intervals_that_the_metrics_do_not_bring_follow_from_counts_and_sds():
    (recall,) = value_rows(entry("align", "r", {"recall@5": 0.25, "queries": 40.0})["test"], "recall@5")
    # Both ends of Wilson's interval solve |p - share| = 1.96 sqrt(p (1 - p) / n).
    for end in (recall["low"], recall["high"]):
        assert abs(end - 0.25) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 40), rel=1e-5)
    (ssim,) = value_rows(
        entry("generate", "s", {"ssim": 0.6, "ssim_sd": 0.2, "n_rows": 100.0})["test"], "ssim"
    )
    assert (ssim["low"], ssim["high"]) == pytest.approx((0.6 - 0.0392, 0.6 + 0.0392), abs=1e-5)
    (disease,) = value_rows(
        entry("s", "", {"auroc/cad": 0.7, "auroc_low/cad": 0.6, "auroc_high/cad": 0.8})["test"], "auroc/cad"
    )
    assert (disease["low"], disease["high"], disease["interval"]) == (0.6, 0.8, "bootstrap over people")


def test_the_meta_analysis_is_that_of_dersimonian_and_laird_on_the_logit():
    values, errors = np.array([0.9, 0.6, 0.75]), np.array([0.03, 0.05, 0.04])
    sites = {name: auroc(v, e) for name, v, e in zip("abc", values, errors, strict=True)}
    (row,) = meta_analysis(entry("screening", "auroc_mean", {"auroc/cad": 0.7}, sites=sites)["test"])
    y, w = logit(values), (values * (1 - values) / errors) ** 2
    q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
    tau2 = (q - 2) / (w.sum() - (w**2).sum() / w.sum())
    weight = 1 / (1 / w + tau2)
    assert row["tau2"] == pytest.approx(tau2) and row["i2"] == pytest.approx((q - 2) / q)
    assert row["auroc"] == pytest.approx(expit((weight * y).sum() / weight.sum()))
    assert row["predicted_low"] < row["low"] < row["auroc"] < row["high"] < row["predicted_high"]


def test_sites_that_agree_have_no_variance_between_them_and_external_sites_take_no_part():
    sites = {name: auroc(0.8, 0.04) for name in "abcd"}
    alone = entry("screening", "auroc_mean", {"auroc/cad": 0.8}, sites=sites)["test"]
    beside = entry("screening", "", {"auroc/cad": 0.8}, sites=sites, external={"x": auroc(0.5, 0.01)})["test"]
    (row,) = meta_analysis(alone)
    assert [row] == meta_analysis(beside)
    assert (row["tau2"], row["i2"], row["sites"]) == (0.0, 0.0, 4)
    assert row["auroc"] == pytest.approx(0.8)


def test_a_perfect_site_is_named_and_left_out():
    sites = {"a": auroc(0.8, 0.04), "b": auroc(1.0, 0.0), "c": {"auroc/cad": 0.7}}
    (row,) = meta_analysis(entry("screening", "auroc_mean", {"auroc/cad": 0.8}, sites=sites)["test"])
    assert row["sites"] == 1 and row["left_out"] == ["b", "c"]
    assert row["auroc"] == pytest.approx(0.8)
    none = entry("screening", "", {"auroc/cad": 0.8}, sites={"b": auroc(1.0, 0.0)})["test"]
    assert meta_analysis(none) == []


def test_only_aurocs_of_everybody_are_analysed_and_groups_stand_apart():
    pooled = {"auroc/cad": 0.8, "auroc/cad/sex-F": 0.75, "ecg_only/auroc/cad": 0.7, "auroc_mean": 0.8}
    sites = {"a": {**auroc(0.8, 0.05), "auroc/cad/sex-F": 0.6}}
    (phase,) = summary_of([entry("fuse", "auroc_mean", pooled, sites=sites)])["phases"]
    assert [row["disease"] for row in phase["meta_analysis"]] == ["cad"]
    group = {"metric": "auroc/cad", "group": "sex-F", "pooled": 0.75, "sites": {"a": 0.6}, "external": {}}
    assert phase["groups"] == [group]


def test_image_metrics_come_with_their_definition():
    phases = [entry("tokenizer", "ssim", {"ssim": 0.9}), entry("probe", "r2_mean", {"r2_mean": 0.1})]
    images, other = summary_of(phases)["phases"]
    assert images["image_metrics"] == IMAGE_DEFINITION and "image_metrics" not in other


def test_calibration_is_set_before_and_after_for_each_disease():
    before = {"brier/cad": 0.2, "ece/cad": 0.1, "calibration_slope/cad": 0.5}
    after = {
        "brier/cad": 0.15,
        "ece/cad": 0.02,
        "calibration_slope/cad": 1.0,
        "brier_mean": 0.15,
        "n/cad": 8.0,
    }
    history = [
        entry("screening", "auroc_mean", before),
        entry("calibrate", "ece_mean", after, sites={"a": after}),
    ]
    pool, site = summary_of(history)["calibration"]
    assert (pool["disease"], pool["kind"], pool["n"]) == ("cad", "pooled", 8.0)
    assert pool["before"]["calibration_slope"] == 0.5 and pool["after"]["calibration_slope"] == 1.0
    assert site["site"] == "a" and site["before"]["ece"] is None
    assert summary_of(history[:1])["calibration"] == []


def test_a_history_without_tests_has_an_empty_summary_and_every_summary_is_json():
    unfinished = {"phase": 0, "task": "probe", "primary": "r2_mean", "round": 1, "sites": []}
    nothing = {"phases": [], "calibration": []}
    assert summary_of([]) == summary_of([unfinished]) == nothing
    study = Study.model_validate({"name": "s", "seed": 1, "phases": [{"task": "probe", "rounds": 1}]})
    assert result_of(study, {}, None)["summary"] == nothing
    two = {"a": auroc(0.8, 0.05), "b": auroc(0.7, 0.05)}
    found = finite(
        summary_of([entry("screening", "auroc_mean", {"auroc/cad": 0.7, "auroc_mean": 0.7}, sites=two)])
    )
    json.dumps(found, allow_nan=False)
    # Two sites give no interval for a third.
    assert found["phases"][0]["meta_analysis"][0]["predicted_low"] is None
