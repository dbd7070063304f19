"""Calibration and thresholds: solved on validation rows alone, over sites as pooled (SCIENCE 7)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import load_tensors

pytestmark = pytest.mark.usefixtures("single_thread")
NEEDS = frozenset({"ecg", "labels"})
TASK = make_task("calibrate", {})
PRIOR = torch.tensor([-2.0, -1.0, 0.0, -0.5, -3.0])


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


@pytest.fixture
def modules(make_people, wave_encoder) -> dict[str, torch.nn.Module]:
    """A head that says something: ridge regression of the latent, with logits that are far too large."""
    names = ("screening_head", "screening_prior", "screening_calibration")
    found = {name: build_module(name, "nano", seed=1) for name in names} | {"ecg_encoder": wave_encoder}
    people = make_people(60, site="elsewhere", seed=99)
    rows = np.arange(120)
    feature = ecg_features(found["ecg_encoder"], view(people), rows).numpy()
    centred = feature - feature.mean(axis=0)
    target = people.phenotypes[rows, 0] - people.phenotypes[rows, 0].mean()
    weight = np.linalg.solve(centred.T @ centred + 1e-3 * np.eye(64), centred.T @ target) / target.std()
    with torch.no_grad():
        for head in found["screening_head"].diseases.values():
            head.weight.copy_(torch.from_numpy(4.0 * weight)[None])
            head.bias.fill_(float(-4.0 * feature.mean(axis=0) @ weight))
        found["screening_prior"].logit.copy_(PRIOR)
    TASK.prepare_modules(found)
    return found


def adjusted(modules, cohort: Cohort, split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = view(cohort).rows(NEEDS, split)
    with torch.no_grad():
        feature = ecg_features(modules["ecg_encoder"], view(cohort), rows).float()
        logit = modules["screening_prior"](modules["screening_head"](feature)).double().numpy()
    return logit[:, :5], cohort.diseases[rows, :5].astype(np.float64)


def measured(modules, cohort: Cohort, split: str):
    return TASK.metric_sums(modules, view(cohort), split=split, seed=0)


def test_three_sites_give_the_pooled_map_and_that_is_logistic_regression(make_people, modules):
    sites = [make_people(60 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    pooled = concatenate(sites, site="all")
    apart = TASK.solve(add_sums({c.site: TASK.sums(modules, view(c)) for c in sites}))
    together = TASK.solve(TASK.sums(modules, view(pooled)))
    assert all(np.allclose(apart[name], together[name], rtol=1e-6) for name in together)
    logit, label = adjusted(modules, pooled, "validation")
    for d in range(5):
        known = ~np.isnan(label[:, d])
        fit = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(
            logit[known, d : d + 1], label[known, d]
        )
        assert apart["slope"][d] == pytest.approx(fit.coef_[0, 0], rel=0.02, abs=2e-3)
        assert apart["intercept"][d] == pytest.approx(fit.intercept_[0], abs=0.02)
    assert (apart["slope"] < 0.7).all(), "the logits were too large"


def test_only_validation_rows_are_read(make_people, modules):
    cohort = make_people(60, site="a", seed=0)
    before = TASK.sums(modules, view(cohort))
    cohort.diseases[cohort.row_split != 1, :5] = 1.0
    assert all(np.array_equal(v, before[n]) for n, v in TASK.sums(modules, view(cohort)).items())
    cohort.diseases[cohort.row_split == 1, :5] = 1.0
    assert not np.array_equal(TASK.sums(modules, view(cohort))["positive"], before["positive"])


@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_the_threshold_is_the_highest_that_reaches_the_sensitivity_on_validation(
    make_people, modules, target
):
    task = make_task("calibrate", {"sensitivity": target})
    cohort = make_people(60, site="a", seed=0)
    load_tensors(modules["screening_calibration"], task.solve(task.sums(modules, view(cohort))))
    metrics = task.metrics(measured(modules, cohort, "validation"))
    logit, label = adjusted(modules, cohort, "validation")
    calibration = modules["screening_calibration"]
    for d, name in enumerate(("cad", "cm", "hf", "pc", "ph")):
        assert metrics[f"sensitivity/{name}"] >= target
        slope, intercept, threshold = (
            float(value.detach()[d])
            for value in (calibration.slope, calibration.intercept, calibration.threshold)
        )
        score = logit[:, d] * slope + intercept
        # One bin of the histogram higher, the sensitivity would be missed.
        higher = threshold + slope * 24 / 2048 + 1e-6
        assert (score[label[:, d] == 1] >= higher).mean() < target


def test_metrics_at_the_stored_thresholds_are_the_pooled_ones_and_scikit_learns(make_people, modules):
    sites = [make_people(120 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    pooled = concatenate(sites, site="all")
    load_tensors(modules["screening_calibration"], TASK.solve(TASK.sums(modules, view(pooled))))
    added = add_sums({c.site: measured(modules, c, "test") for c in sites})
    for name, value in measured(modules, pooled, "test").items():
        if not name.startswith(("sex_", "age_")):
            assert np.allclose(added[name], value, rtol=1e-5, atol=1e-5), name
    metrics = TASK.metrics(added)
    raw, label = adjusted(modules, pooled, "test")
    with torch.no_grad():
        logit = modules["screening_calibration"](torch.from_numpy(raw)).numpy()
    threshold = modules["screening_calibration"].threshold.detach().numpy()
    women = pooled.row_sex[view(pooled).rows(NEEDS, "test")] == 0
    for d, name in enumerate(("cad", "cm", "hf", "pc", "ph")):
        known = ~np.isnan(label[:, d])
        y, called = label[known, d], logit[known, d] >= threshold[d]
        sensitivity, specificity = recall_score(y, called), recall_score(y, called, pos_label=0)
        assert metrics[f"sensitivity/{name}"] == pytest.approx(sensitivity)
        assert metrics[f"specificity/{name}"] == pytest.approx(specificity)
        assert metrics[f"ppv/{name}"] == pytest.approx(precision_score(y, called))
        assert metrics[f"f1/{name}"] == pytest.approx(f1_score(y, called))
        assert metrics[f"kappa/{name}"] == pytest.approx(cohen_kappa_score(y, called))
        assert metrics[f"brier/{name}"] == pytest.approx(((expit(logit[known, d]) - y) ** 2).mean(), rel=1e-5)
        assert metrics[f"threshold/{name}"] == pytest.approx(expit(threshold[d]), rel=1e-5)
        p = float(expit(PRIOR[d].numpy()))
        assert metrics[f"prior/{name}"] == pytest.approx(p, rel=1e-6)
        ppv = sensitivity * p / (sensitivity * p + (1 - specificity) * (1 - p))
        assert metrics[f"ppv_at_prior/{name}"] == pytest.approx(ppv, rel=1e-5)
        assert metrics[f"sensitivity_low/{name}"] < sensitivity <= metrics[f"sensitivity_high/{name}"]
    of_women = recall_score(label[women, 0], logit[women, 0] >= threshold[0])
    assert metrics["sensitivity/cad/sex-F"] == pytest.approx(of_women)
    assert metrics["ece_mean"] < 0.7 * metrics["ece_uncalibrated_mean"]
    assert metrics["brier_mean"] < metrics["brier_uncalibrated_mean"]


def test_few_positives_no_overlap_and_a_head_that_is_upside_down_change_no_logit(make_people, modules):
    cohort = make_people(60, site="a", seed=0)
    validation = np.flatnonzero(cohort.row_split == 1)
    logit, _ = adjusted(modules, cohort, "validation")
    cohort.diseases[validation, 0] = 0.0
    cohort.diseases[np.isin(cohort.row_patient, cohort.row_patient[validation[:8]]), 0] = 1.0
    cohort.diseases[validation, 1] = logit[:, 1] > np.median(logit[:, 1])
    cohort.diseases[validation, 3] = logit[:, 3] < np.quantile(logit[:, 3], 0.4)
    cohort.diseases[validation[:2], 3] = 1.0
    cohort.diseases[validation[-2:], 3] = 0.0
    found = TASK.solve(TASK.sums(modules, view(cohort)))
    assert found["slope"][[0, 1, 3]].tolist() == [1.0, 1.0, 1.0]
    assert found["intercept"][[0, 1, 3]].tolist() == [0.0, 0.0, 0.0]
    assert found["threshold"][0] == 0.0, "four ill people set no threshold"
    assert found["threshold"][1] > np.median(logit[:, 1]) - 0.02
    assert found["slope"][2] != 1.0


def test_scores_below_all_bins_are_called_by_the_lowest_threshold(make_people, modules):
    cohort = make_people(60, site="a", seed=0)
    with torch.no_grad():
        modules["screening_prior"].logit.fill_(-80.0)
    solved = TASK.solve(TASK.sums(modules, view(cohort)))
    assert np.isfinite(solved["threshold"]).all()
    load_tensors(modules["screening_calibration"], solved)
    assert TASK.metrics(measured(modules, cohort, "test"))["sensitivity/cad"] == 1.0


def test_nobody_gives_zeros_without_running_a_module(make_people, modules):
    nobody = empty_cohort(site="nobody", phenotypes=82)
    somebody = make_people(12, site="a", seed=0)
    large = {**modules, "ecg_encoder": build_module("ecg_encoder", "paper", seed=0, device="meta")}
    for make in (lambda m, c: TASK.sums(m, view(c)), lambda m, c: measured(m, c, "test")):
        empty, full = make(large, nobody), make(modules, somebody)
        assert {n: v.shape for n, v in empty.items()} == {n: v.shape for n, v in full.items()}
        assert not any(value.any() for value in empty.values())
    neutral = TASK.solve(TASK.sums(large, view(nobody)))
    assert neutral["slope"].tolist() == [1.0] * 5
    assert neutral["threshold"].tolist() == [0.0] * 5
    assert TASK.metrics(measured(large, nobody, "test")) == {"n_rows": 0.0, "n_patients": 0.0}


def test_a_sensitivity_is_a_share():
    for value in (0.0, 1.5):
        with pytest.raises(ConfigError, match="at most 1"):
            make_task("calibrate", {"sensitivity": value})
