"""The phenotype head: masks, decomposition over sites, metrics (SCIENCE 4, 7, 8.7, 8.10, 8.20)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score

from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.errors import ConfigError, SourceInvalidError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import load_tensors

pytestmark = pytest.mark.usefixtures("single_thread")
NEEDS = frozenset({"ecg", "phenotypes"})


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def solved_modules(*cohorts: Cohort) -> dict[str, torch.nn.Module]:
    """New modules with the standardiser of these sites."""
    names = ("ecg_encoder", "phenotype_head", "phenotype_standardiser")
    modules = {name: build_module(name, "nano", seed=1) for name in names}
    scaler = make_task("standardise", {})
    sums = add_sums({c.site: scaler.sums(modules, view(c)) for c in cohorts})
    load_tensors(modules["phenotype_standardiser"], scaler.solve(sums))
    return modules


def training_step(task, modules, cohort):
    """The loss of all training rows as a function of the modules."""
    task.prepare_modules(modules)
    site = view(cohort)
    state = task.open_round(modules, site, task.roles[0])
    rows = site.rows(NEEDS, "train")
    batch = cohort.batch(rows, keys=NEEDS, shape=site.shape, generator=np.random.default_rng(0))
    return lambda: task.loss(modules, batch, state, generator=torch.Generator())


def training_loss(task, modules, cohort):
    return training_step(task, modules, cohort)()


def gradient(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters()])


@pytest.mark.parametrize("windows", ["random", "mean"])
def test_a_column_that_nobody_measured_trains_nothing_and_breaks_nothing(make_people, windows):
    cohort = make_people(9, site="a", seed=0)
    task, modules = make_task("phenotype", {"windows": windows}), solved_modules(cohort)
    training_loss(task, modules, cohort).total.backward()
    last = modules["phenotype_head"][-1]
    assert torch.isfinite(last.weight.grad).all()
    assert not last.weight.grad[7].any()
    assert last.bias.grad[7] == 0.0
    assert last.weight.grad[6].any()
    assert all(p.grad is None for p in modules["ecg_encoder"].parameters())


def test_per_row_terms_are_on_standardised_values(make_people):
    cohort = make_people(9, site="a", seed=0)
    task, modules = make_task("phenotype", {"windows": "mean"}), solved_modules(cohort)
    found = training_loss(task, modules, cohort)
    rows = view(cohort).rows(NEEDS, "train")
    predicted = modules["phenotype_head"](ecg_features(modules["ecg_encoder"], view(cohort), rows).float())
    value = cohort.phenotypes[rows]
    trained = cohort.phenotypes[cohort.row_split == 0].astype(np.float64)
    kept = [k for k in range(82) if k != 7]
    scaled = (value[:, kept] - np.nanmean(trained[:, kept], axis=0)) / np.nanstd(trained[:, kept], axis=0)
    error = (predicted.detach().numpy()[:, kept] - scaled) ** 2
    assert np.allclose(found.per_sample_B.detach(), np.nanmean(error, axis=1), rtol=1e-4)
    assert float(found.total.detach()) == pytest.approx(float(found.per_sample_B.detach().mean()))


def test_the_mean_of_the_sites_gradients_is_the_pooled_gradient(make_people):
    sites = [make_people(6 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    task, modules = make_task("phenotype", {"windows": "mean"}), solved_modules(*sites)
    pooled_cohort = concatenate(sites, site="all")
    training_loss(task, modules, pooled_cohort).total.backward()
    pooled = gradient(modules["phenotype_head"])
    total, rows = torch.zeros_like(pooled), 0
    for cohort in sites:
        training_loss(task, modules, cohort).total.backward()
        count = len(view(cohort).rows(NEEDS, "train"))
        total, rows = total + count * gradient(modules["phenotype_head"]), rows + count
    assert torch.allclose(total / rows, pooled, atol=1e-6)


def test_options_set_what_is_trained(make_people):
    cohort = make_people(9, site="a", seed=0)
    task, modules = make_task("phenotype", {"train_encoder": True}), solved_modules(cohort)
    assert task.trains == ("phenotype_head", "ecg_encoder")
    assert task.reads == ("phenotype_standardiser",)
    training_loss(task, modules, cohort).total.backward()
    assert all(p.grad is not None for p in modules["ecg_encoder"].parameters())
    assert make_task("phenotype", {}).reads == ("ecg_encoder", "phenotype_standardiser")
    for options, said in (
        ({"train_encoder": True, "windows": "mean"}, "windows to random"),
        ({"windows": "first"}, "random, mean"),
        ({"bootstrap_replicates": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError) as caught:
            make_task("phenotype", options)
        assert said in str(caught.value)


def test_mean_features_are_made_once_and_those_of_a_trained_encoder_each_time(make_people):
    cohort = make_people(9, site="a", seed=0)
    modules, calls = solved_modules(cohort), []
    modules["ecg_encoder"].register_forward_hook(lambda *_: calls.append(1))
    site = view(cohort)

    def rounds(task) -> list[int]:
        counts = []
        for _ in range(2):
            calls.clear()
            task.open_round(modules, site, task.roles[0])
            task.metric_sums(modules, site, split="test", seed=0)
            counts.append(len(calls))
        return counts

    first, second = rounds(make_task("phenotype", {"windows": "mean", "bootstrap_replicates": 5}))
    assert (first > 0, second) == (True, 0)
    first, second = rounds(make_task("phenotype", {"train_encoder": True, "bootstrap_replicates": 5}))
    assert first == second > 0


def test_kept_features_do_not_depend_on_the_precision_of_the_steps(make_people):
    cohort = make_people(9, site="a", seed=0)
    task, modules = make_task("phenotype", {"windows": "mean"}), solved_modules(cohort)
    row = torch.from_numpy(view(cohort).rows(NEEDS, "train"))
    plain = task.open_round(modules, view(cohort), task.roles[0]).take(row)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(task.open_round(modules, view(cohort), task.roles[0]).take(row), plain)
    with pytest.raises(IndexError, match="no feature"):
        task.open_round(modules, view(cohort), task.roles[0]).take(torch.tensor([4]))  # a test row


def measured(task, modules, cohorts):
    return {c.site: task.metric_sums(modules, view(c), split="test", seed=3) for c in cohorts}


def test_metrics_over_sites_are_the_pooled_ones_and_scikit_learns(make_people, wave_encoder):
    sites = [make_people(45 + 6 * i, site=name, seed=i) for i, name in enumerate("abc")]
    pooled = concatenate(sites, site="all")
    task = make_task("phenotype", {"windows": "mean", "bootstrap_replicates": 200})
    modules = {**solved_modules(*sites), "ecg_encoder": wave_encoder}
    rows = view(pooled).rows(NEEDS, "test")

    # A short training, so that the head says something.
    step = training_step(task, modules, pooled)
    optimiser = torch.optim.Adam(modules["phenotype_head"].parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        step().total.backward()
        optimiser.step()

    added = add_sums(measured(task, modules, sites))
    (whole,) = measured(task, modules, [pooled]).values()
    for name, value in whole.items():
        if "withheld" not in name and not name.startswith("boot_"):
            assert np.allclose(added[name], value, rtol=1e-5, atol=1e-5), name
    metrics = task.metrics(added)
    with torch.no_grad():
        feature = ecg_features(modules["ecg_encoder"], view(pooled), rows).float()
        output = modules["phenotype_standardiser"].restore(modules["phenotype_head"](feature)).numpy()
    target = pooled.phenotypes[rows]
    expected = {}
    for column in [k for k in range(82) if k != 7]:
        known = np.isfinite(target[:, column])
        expected[column] = r2_score(target[known, column], output[known, column])
        assert metrics[f"r2/{24100 + column}"] == pytest.approx(expected[column], abs=1e-5)
        error = mean_absolute_error(target[known, column], output[known, column])
        assert metrics[f"mae/{24100 + column}"] == pytest.approx(error, rel=1e-4)
    assert metrics["r2_mean"] == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
    assert "r2/24107" not in metrics
    assert metrics["columns"] == 81.0
    assert metrics["r2_mean_low"] < metrics["r2_mean"] < metrics["r2_mean_high"]
    assert metrics["r2_mean"] > 0.2, "the wave explains the phenotypes"

    women = pooled.row_sex[rows] == 0
    by_column = []
    for column in expected:
        known = women & np.isfinite(target[:, column])
        by_column.append(r2_score(target[known, column], output[known, column]))
    assert metrics["r2_mean/sex-F"] == pytest.approx(np.mean(by_column), abs=1e-5)
    assert "r2_mean/sex-unknown" not in metrics


def test_a_group_of_four_people_never_leaves_the_site(make_people):
    cohort = make_people(60, site="a", seed=0)
    tested = np.unique(cohort.row_patient[cohort.row_split == 2])
    cohort.row_sex[:] = 1
    cohort.row_sex[np.isin(cohort.row_patient, tested[:4])] = 0
    task = make_task("phenotype", {"bootstrap_replicates": 5})
    modules = solved_modules(cohort)
    (sums,) = measured(task, modules, [cohort]).values()
    for name in ("n", "Sy", "Syy", "See"):
        assert not sums[f"sex_{name}"][0].any()
        # Total less the men would give the four women: they are withheld too.
        assert not sums[f"sex_{name}"][1].any()
    assert sums["sex_withheld"][0, 0] == 1.0
    cohort.row_sex[np.isin(cohort.row_patient, tested[:5])] = 0
    (sums,) = measured(task, modules, [cohort]).values()
    assert sums["sex_n"][0, 0] == 10.0
    assert sums["sex_patients"][0, 0, 0] == 5.0


def test_a_column_without_variation_in_training_counts_as_missing(make_people):
    cohort = make_people(60, site="a", seed=0)
    cohort.phenotypes[cohort.row_split == 0, 0] = np.nan
    task = make_task("phenotype", {"bootstrap_replicates": 5})
    (sums,) = measured(task, solved_modules(cohort), [cohort]).values()
    assert sums["n"][:2].tolist() == [0.0, 40.0]
    assert "r2/24100" not in task.metrics(sums)


def test_nobody_gives_zeros_without_running_a_module(make_people):
    task = make_task("phenotype", {"bootstrap_replicates": 5})
    modules = solved_modules(make_people(9, site="a", seed=0))
    modules["ecg_encoder"] = build_module("ecg_encoder", "paper", seed=0, device="meta")
    modules["phenotype_head"] = build_module("phenotype_head", "paper", seed=0, device="meta")
    (empty,) = measured(task, modules, [empty_cohort(site="nobody", phenotypes=82)]).values()
    assert not any(value.any() for value in empty.values())
    somebody = make_people(9, site="a", seed=0)
    (full,) = measured(task, solved_modules(somebody), [somebody]).values()
    assert {n: v.shape for n, v in empty.items()} == {n: v.shape for n, v in full.items()}
    assert task.metrics(empty)["columns"] == 0.0


def test_a_foreign_number_of_columns_is_refused(make_people):
    cohort = make_people(9, site="a", seed=0)
    modules = solved_modules(cohort)
    object.__setattr__(cohort, "phenotypes", cohort.phenotypes[:, :5])
    with pytest.raises(SourceInvalidError, match="5 phenotype columns"):
        measured(make_task("phenotype", {}), modules, [cohort])
