"""The screening head from sums: that of pooled rows, and scikit-learn's (SCIENCE 4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import load_tensors

pytestmark = pytest.mark.usefixtures("single_thread")
NAMES = ("cad", "cm", "hf", "pc", "ph")


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def make_modules(*cohorts: Cohort, encoder: torch.nn.Module) -> dict[str, torch.nn.Module]:
    modules = {name: build_module(name, "nano", seed=1) for name in ("screening_head", "screening_prior")}
    modules["ecg_encoder"] = encoder
    prior = make_task("prevalence", {})
    load_tensors(
        modules["screening_prior"],
        prior.solve(add_sums({c.site: prior.sums(modules, view(c)) for c in cohorts})),
    )
    return modules


def fit(modules, cohorts, *, rounds: int, penalty: float = 1.0) -> None:
    task = make_task("logistic", {"penalty": penalty})
    for _ in range(rounds):
        sums = add_sums({c.site: task.sums(modules, view(c)) for c in cohorts})
        load_tensors(modules["screening_head"], task.solve(sums))


def training_rows(modules, cohorts) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features and labels, pooled."""
    features, labels = [], []
    for cohort in cohorts:
        rows = view(cohort).rows(frozenset({"ecg", "labels"}), "train")
        features.append(ecg_features(modules["ecg_encoder"], view(cohort), rows).double().numpy())
        labels.append(cohort.diseases[rows])
    return np.concatenate(features), np.concatenate(labels)


def adjusted(modules, feature: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logit = modules["screening_head"](torch.from_numpy(feature).float())
        return modules["screening_prior"](logit).double().numpy()


@pytest.fixture
def sites(make_people) -> list[Cohort]:
    return [make_people(people, site=name, seed=seed) for seed, (name, people) in
            enumerate((("a", 30), ("b", 60), ("c", 45)))]  # fmt: skip


@pytest.mark.parametrize("penalty", [1.0, 0.1])
def test_each_disease_is_scikit_learns_regression_on_pooled_rows(sites, wave_encoder, penalty):
    sites[1].diseases[:, 3] = np.nan  # one site lacks a disease
    modules = make_modules(*sites, encoder=wave_encoder)
    fit(modules, sites, rounds=60, penalty=penalty)
    feature, label = training_rows(modules, sites)
    standard = (feature - feature.mean(axis=0)) / feature.std(axis=0)
    logit = adjusted(modules, feature)
    for place, name in enumerate(NAMES):
        known = np.isfinite(label[:, place])
        model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=20_000)
        model.fit(standard[known], label[known, place])
        expected = model.decision_function(standard)
        assert np.ptp(expected) > 1.0
        np.testing.assert_allclose(logit[:, place], expected, atol=5e-3, err_msg=name)


def test_subtypes_come_to_scikit_learns_regression(sites, wave_encoder):
    modules = make_modules(*sites, encoder=wave_encoder)
    fit(modules, sites, rounds=60, penalty=5.0)
    feature, label = training_rows(modules, sites)
    standard = (feature - feature.mean(axis=0)) / feature.std(axis=0)
    known = np.isfinite(label[:, 5:]).all(axis=1)
    model = LogisticRegression(C=1 / 5.0, tol=1e-10, max_iter=20_000)
    model.fit(standard[known], label[known, 5:].argmax(axis=1))
    expected = model.decision_function(standard[known])
    found = adjusted(modules, feature[known])[:, 5:]
    found = found - found.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected - expected.mean(axis=1, keepdims=True), atol=2e-2)


def test_three_sites_take_the_step_of_pooled_rows(sites, wave_encoder):
    pooled = concatenate(sites, site="all")
    apart, together = (make_modules(*sites, encoder=wave_encoder) for _ in range(2))
    fit(apart, sites, rounds=2)
    fit(together, [pooled], rounds=2)
    for name, value in apart["screening_head"].named_parameters():
        other = together["screening_head"].get_parameter(name)
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def test_every_disease_comes_to_the_same_end_from_any_head(sites, wave_encoder):
    ends = []
    for scale in (0.0, 30.0):
        modules = make_modules(*sites, encoder=wave_encoder)
        with torch.no_grad():
            for parameter in modules["screening_head"].parameters():
                parameter.mul_(scale)
        fit(modules, sites, rounds=80)
        ends.append(adjusted(modules, training_rows(modules, sites)[0])[:, :5])
    np.testing.assert_allclose(ends[0], ends[1], atol=5e-3)


def test_a_disease_that_nobody_has_leaves_the_prior(sites, wave_encoder):
    for cohort in sites:
        cohort.diseases[:, 3] = 0.0
        cohort.diseases[:, 0] = np.nan
        cohort.diseases[:, 5:] = np.nan
    modules = make_modules(*sites, encoder=wave_encoder)
    fit(modules, sites, rounds=3)
    head = modules["screening_head"]
    for part in (head.diseases["cad"], head.diseases["pc"], head.subtype):
        assert not part.weight.any() and not part.bias.any()
    assert head.diseases["ph"].weight.any()


def test_a_site_of_nobody_adds_nothing_and_alone_gives_finite_numbers(sites, wave_encoder):
    nobody = empty_cohort(site="nobody", phenotypes=82)
    modules = make_modules(*sites, encoder=wave_encoder)
    task = make_task("logistic", {})
    own, none = task.sums(modules, view(sites[0])), task.sums(modules, view(nobody))
    assert {name: value.shape for name, value in own.items()} == {n: v.shape for n, v in none.items()}
    assert not any(value.any() for value in none.values())
    assert all(np.isfinite(value).all() for value in task.solve(none).values())


def test_it_is_measured_as_screening_is(sites, wave_encoder):
    modules = make_modules(*sites, encoder=wave_encoder)
    fit(modules, sites, rounds=5)
    options = {"bootstrap_replicates": 20}
    found = make_task("logistic", options).metric_sums(modules, view(sites[1]), split="test", seed=1)
    screening = make_task("screening", {**options, "windows": "mean"})
    expected = screening.metric_sums(modules, view(sites[1]), split="test", seed=1)
    assert all(np.array_equal(value, expected[name]) for name, value in found.items())
    assert make_task("logistic", options).metrics(found)["auroc_mean"] > 0.6


@pytest.mark.parametrize("wrong", [{"penalty": 0.0}, {"bootstrap_replicates": 0}, {"penalties": 1.0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError):
        make_task("logistic", wrong)
