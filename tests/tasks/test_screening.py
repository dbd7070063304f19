"""The screening head: masks, the prior, metrics over sites against scikit-learn (SCIENCE 4, 7, 8.7, 8.10)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation import add_sums, auroc_bound
from cardionets_core.losses import disease_loss, subtype_loss
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.binary_sums import auroc_gain, disease_metrics, disease_sums
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import load_tensors

pytestmark = pytest.mark.usefixtures("single_thread")
NEEDS = frozenset({"ecg", "labels"})
NAMES = ("cad", "cm", "hf", "pc", "ph")


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def solved_modules(*cohorts: Cohort, scale: float = 1.0) -> dict[str, torch.nn.Module]:
    """New modules with the prior of these sites; ``scale`` spreads the head's logits."""
    names = ("ecg_encoder", "screening_head", "screening_prior")
    modules = {name: build_module(name, "nano", seed=1) for name in names}
    prior = make_task("prevalence", {})
    solved = prior.solve(add_sums({c.site: prior.sums(modules, view(c)) for c in cohorts}))
    load_tensors(modules["screening_prior"], solved)
    with torch.no_grad():
        for parameter in modules["screening_head"].parameters():
            parameter.mul_(scale)
    return modules


def training_loss(task, modules, cohort):
    task.prepare_modules(modules)
    site = view(cohort)
    state = task.open_round(modules, site, task.roles[0])
    rows = site.rows(NEEDS, "train")
    batch = cohort.batch(rows, keys=NEEDS, shape=site.shape, generator=np.random.default_rng(0))
    return task.loss(modules, batch, state, generator=torch.Generator())


def adjusted(modules, cohort: Cohort, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        feature = ecg_features(modules["ecg_encoder"], view(cohort), rows).float()
        return modules["screening_prior"](modules["screening_head"](feature)).double().numpy()


def measured(task, modules, cohorts):
    return {c.site: task.metric_sums(modules, view(c), split="test", seed=3) for c in cohorts}


def test_the_loss_is_that_of_logits_with_the_prior_added(make_people):
    cohort = make_people(12, site="a", seed=0)
    modules = solved_modules(cohort)
    rows = view(cohort).rows(NEEDS, "train")
    logit = torch.from_numpy(adjusted(modules, cohort, rows)).float()
    label = torch.from_numpy(cohort.diseases[rows])
    for weight in (0.0, 2.0):
        task = make_task("screening", {"windows": "mean", "subtype_weight": weight})
        found = training_loss(task, modules, cohort)
        expected = disease_loss(logit[:, :5], label[:, :5]) + weight / 5 * subtype_loss(
            logit[:, 5:], label[:, 5:]
        )
        assert torch.allclose(found.per_sample_B.detach(), expected, atol=1e-5)
        assert torch.allclose(found.total, found.per_sample_B.mean())


@pytest.mark.parametrize("windows", ["random", "mean"])
def test_a_disease_that_the_site_does_not_know_trains_nothing(make_people, windows):
    cohort = make_people(12, site="a", seed=0)
    cohort.diseases[:, 4:] = np.nan
    task, modules = make_task("screening", {"windows": windows}), solved_modules(cohort)
    training_loss(task, modules, cohort).total.backward()
    head = modules["screening_head"]
    for unknown in (head.diseases["ph"], head.subtype):
        assert not unknown.weight.grad.any()
        assert not unknown.bias.grad.any()
    assert head.diseases["cad"].weight.grad.any()
    assert all(p.grad is None for name in task.reads for p in modules[name].parameters())


def test_the_mean_of_the_sites_gradients_is_the_pooled_gradient(make_people):
    sites = [make_people(6 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    sites[0].diseases[:, 1] = np.nan
    sites[0].diseases[:, 5:] = np.nan
    task, modules = make_task("screening", {"windows": "mean"}), solved_modules(*sites)

    def gradient(cohort: Cohort) -> torch.Tensor:
        training_loss(task, modules, cohort).total.backward()
        return torch.cat([p.grad.flatten() for p in modules["screening_head"].parameters()])

    rows = [len(view(cohort).rows(NEEDS, "train")) for cohort in sites]
    mean = sum(n * gradient(cohort) for n, cohort in zip(rows, sites, strict=True)) / sum(rows)
    assert torch.allclose(mean, gradient(concatenate(sites, site="all")), atol=1e-6)


def test_metrics_over_sites_are_the_pooled_ones_and_scikit_learns(make_people, wave_encoder):
    sites = [make_people(120 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    sites[1].diseases[:, 3] = np.nan
    pooled = concatenate(sites, site="all")
    task = make_task("screening", {"bootstrap_replicates": 100})
    modules = {**solved_modules(*sites, scale=4.0), "ecg_encoder": wave_encoder}
    added = add_sums(measured(task, modules, sites))
    (whole,) = measured(task, modules, [pooled]).values()
    groups = ("sex_", "age_", "boot_")  # what is withheld and who is drawn depends on the site
    for name, value in whole.items():
        if not name.startswith(groups):
            assert np.allclose(added[name], value, rtol=1e-5, atol=1e-5), name

    metrics = task.metrics(added)
    rows = view(pooled).rows(NEEDS, "test")
    logit, label = adjusted(modules, pooled, rows), pooled.diseases[rows].astype(np.float64)
    areas = []
    for d, name in enumerate(NAMES):
        known = ~np.isnan(label[:, d])
        y, z = label[known, d], logit[known, d]
        areas.append(roc_auc_score(y, z))
        assert metrics[f"auroc/{name}"] == pytest.approx(areas[-1], abs=auroc_bound(added)[d] + 1e-12)
        assert metrics[f"auprc/{name}"] == pytest.approx(average_precision_score(y, z), abs=0.02)
        assert metrics[f"brier/{name}"] == pytest.approx(brier_score_loss(y, expit(z)), rel=1e-5)
        assert metrics[f"prevalence/{name}"] == pytest.approx(y.mean())
        assert metrics[f"auroc_low/{name}"] < metrics[f"auroc/{name}"] < metrics[f"auroc_high/{name}"]
        assert 0.0 < metrics[f"auroc_se/{name}"] < 0.2
        women = known & (pooled.row_sex[rows] == 0)
        of_women = roc_auc_score(label[women, d], logit[women, d])
        if d != 3:
            assert metrics[f"auroc/{name}/sex-F"] == pytest.approx(of_women, abs=0.01)
    assert metrics["auroc_mean"] == pytest.approx(np.mean(areas), abs=0.005)
    assert metrics["auroc_mean_low"] < metrics["auroc_mean"] < metrics["auroc_mean_high"]

    known = ~np.isnan(label[:, 5])
    true = label[known, 5:].argmax(axis=1)
    share = softmax(logit[known, 5:], axis=1)
    macro = roc_auc_score(true, share, multi_class="ovr", average="macro")
    assert metrics["subtype_auroc_macro"] == pytest.approx(macro, abs=0.01)
    assert np.array_equal(added["subtype_confusion"], confusion_matrix(true, share.argmax(axis=1)))
    assert metrics["subtype_n"] == known.sum()


def test_a_few_ill_people_of_a_group_never_leave_the_site(make_people):
    cohort = make_people(60, site="a", seed=0)
    tested = cohort.row_split == 2
    people = np.unique(cohort.row_patient[tested])
    cohort.diseases[tested, 0] = 0.0
    cohort.diseases[np.isin(cohort.row_patient, people[:8]), 0] = 1.0
    cohort.row_sex[:] = 1
    cohort.row_sex[np.isin(cohort.row_patient, [*people[:4], *people[-8:]])] = 0
    task = make_task("screening", {"bootstrap_replicates": 5})
    (sums,) = measured(task, solved_modules(cohort), [cohort]).values()
    assert not sums["sex_positive"][:, 0].any(), "four ill women, and four ill men by difference"
    assert not sums["sex_negative"][:, 0].any(), "and the healthy of the same cell"
    assert "auroc/cad/sex-F" not in task.metrics(sums)


def test_without_rows_or_without_a_class_nothing_is_claimed(make_people):
    task = make_task("screening", {"bootstrap_replicates": 5})
    cohort = make_people(12, site="a", seed=0)
    modules = solved_modules(cohort)
    (full,) = measured(task, modules, [cohort]).values()
    meta = {name: build_module(name, "paper", seed=0, device="meta") for name in modules}
    (empty,) = measured(task, meta, [empty_cohort(site="nobody", phenotypes=82)]).values()
    assert {n: v.shape for n, v in empty.items()} == {n: v.shape for n, v in full.items()}
    assert not any(value.any() for value in empty.values())
    assert task.primary not in task.metrics(empty)
    cohort.diseases[:, 5:] = np.nan
    cohort.diseases[:, :5] = 0.0
    (healthy,) = measured(task, modules, [cohort]).values()
    found = task.metrics(healthy)
    assert found["prevalence/cad"] == 0.0
    assert task.primary not in found
    assert all(np.isfinite(value) for value in found.values())


def test_wrong_options_are_refused():
    for options, said in (
        ({"subtype_weight": -1.0}, "0 or more"),
        ({"train_encoder": True, "windows": "mean"}, "windows to random"),
    ):
        with pytest.raises(ConfigError) as caught:
            make_task("screening", options)
        assert said in str(caught.value)


def test_the_gain_of_a_model_over_another_is_paired(make_people):
    """Two models that differ by little: the paired interval is far narrower than either model's own."""
    cohort = make_people(150, site="a", seed=0)
    rows = np.arange(300)
    rng = np.random.default_rng(0)
    label = cohort.diseases[:, :5].astype(np.float64)
    good = np.nan_to_num(label) + rng.normal(size=label.shape)
    worse = good + 0.3 * rng.normal(size=label.shape)

    def sums(logit):
        return disease_sums(logit, label, cohort=cohort, rows=rows, replicates=300, seed=5)

    nothing = auroc_gain(sums(good), sums(good))
    assert (
        nothing["auroc_gain/cad"] == nothing["auroc_gain_mean_low"] == nothing["auroc_gain_mean_high"] == 0.0
    )
    gain, own = auroc_gain(sums(good), sums(worse)), disease_metrics(sums(good))
    expected = roc_auc_score(label[:, 0], good[:, 0]) - roc_auc_score(label[:, 0], worse[:, 0])
    assert gain["auroc_gain/cad"] == pytest.approx(expected, abs=2e-3)
    assert gain["auroc_gain_mean_low"] < gain["auroc_gain_mean"] < gain["auroc_gain_mean_high"]
    paired = gain["auroc_gain_mean_high"] - gain["auroc_gain_mean_low"]
    assert paired < 0.6 * (own["auroc_mean_high"] - own["auroc_mean_low"])
    assert gain["auroc_gain_mean_p"] < 0.05
