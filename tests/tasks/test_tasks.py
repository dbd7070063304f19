"""Tasks: options, frozen modules, losses that decompose, sums that add (SCIENCE 8.2, 8.11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.errors import ConfigError, OrderRefusedError, UnknownNameError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import MODULES, build_module, get_preset
from cardionets_core.tasks import TASKS, ClosedFormTask, GradientTask, MeasureTask, SiteView, Task, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.tensors import export_tensors

CPU = torch.device("cpu")
EARLIER = "nano+cardiacnets"
# Every task of either generation, and those of the short axis: (models, task, options).
KINDS = [
    *(("nano", name, {}) for name in sorted(TASKS)),
    *((EARLIER, name, {}) for name in sorted(TASKS)),
    *(("nano", name, {"view": "sax"}) for name in sorted(TASKS) if "view" in TASKS[name].defaults),
    (EARLIER, "align", {"loss": "cosine"}),
    (EARLIER, "cmr_mae", {"contrast": "cosine"}),
    (EARLIER, "generate", {"view": "sax"}),
]
TRAINED = [kind for kind in KINDS if issubclass(TASKS[kind[1]], GradientTask)]


def kind_name(part: object) -> str | None:
    """Of a part of ``KINDS``, for the test's own name."""
    return "-".join(map(str, part.values())) or "plain" if isinstance(part, dict) else None


@pytest.fixture(autouse=True)
def one_thread():
    """Bytes repeat with a fixed number of threads, and small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cohort(
    rows: int, *, site: str = "a", seed: int = 0, split: int = 0, patients: int | None = None
) -> Cohort:
    """Rows with everything, four seconds of noise each."""
    rng = np.random.default_rng(seed)
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=rng.integers(-900, 900, rows * 12 * 1000).astype(np.int16),
        ecg_offsets=np.arange(rows) * 1000,
        ecg_samples=np.full(rows, 1000),
        cines=rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows) % (patients or max(rows, 1)),
        row_split=np.full(rows, split, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.arange(rows),
        row_views={"sax": np.arange(rows)[::-1].copy()},
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=_labels(rows, np.random.default_rng(seed + 1)),
    )


def _labels(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Every disease known at random, and a subtype where there is a cardiomyopathy."""
    labels = rng.integers(0, 2, (rows, 8)).astype(np.float32)
    labels[:, 5:] = np.where(labels[:, 1:2] == 1, np.eye(3)[rng.integers(0, 3, rows)], np.nan)
    return labels


def view(cohort: Cohort, models: str = "nano") -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of(models), device=CPU)


def kind_of(models: str, name: str, options: dict) -> Task:
    return make_task(name, options, get_preset(models).parts)


def make_modules(models: str = "nano") -> dict[str, torch.nn.Module]:
    modules = {name: build_module(name, models, seed=1) for name in MODULES}
    generator = torch.Generator().manual_seed(5)
    for name in ("cmr_principal", "sax_principal"):
        for parameter in modules[name].parameters():
            parameter.data.normal_(generator=generator).abs_()
    return modules


def open_and_load(task, modules, cohort, models="nano"):
    task.prepare_modules(modules)
    site, role = view(cohort, models), task.roles[0]
    state = task.open_round(modules, site, role)
    rows = site.rows(role.row_needs, "train")
    batch = cohort.batch(rows, keys=role.row_needs, shape=site.shape, generator=np.random.default_rng(0))
    return state, batch


def test_the_registry_names_every_task():
    assert {"ecg_mae", "cmr_mae", "principal", "align", "probe"} <= set(TASKS)
    with pytest.raises(UnknownNameError, match=", ".join(TASKS)):
        make_task("sleep", {})
    for name in TASKS:
        task = make_task(name, {})
        assert set(task.trains) | set(task.reads) <= set(MODULES)
        assert sum(isinstance(task, kind) for kind in (GradientTask, ClosedFormTask, MeasureTask)) == 1


@pytest.mark.parametrize(("models", "name", "options"), KINDS, ids=kind_name)
def test_every_kind_of_a_task_is_that_task_with_modules_of_its_own(models, name, options):
    task, usual = kind_of(models, name, options), make_task(name, {})
    assert (task.name, task.primary) == (name, usual.primary)
    assert set(task.trains) | set(task.reads) <= set(MODULES)
    assert sum(isinstance(task, kind) for kind in (GradientTask, ClosedFormTask, MeasureTask)) == 1
    short = {module for module in (*task.trains, *task.reads) if module.startswith("sax_")}
    assert bool(short) == (
        options.get("view") == "sax" or (models == EARLIER and name in ("cmr_mae", "align"))
    )
    if options.get("view") == "sax":
        assert not any(module.startswith("cmr_") for module in (*task.trains, *task.reads))
        assert "sax" in task.needs and "cine" not in task.needs


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("align", {"temprature": 0.1}, "the options are: bank"),
        ("align", {"temperature": "warm"}, "wrong type"),
        ("align", {"temperature": True}, "wrong type"),
        ("align", {"temperature": 0.0}, "above 0"),
        ("ecg_mae", {"mask_share": 1.0}, "between 0 and 1"),
        ("probe", {"bootstrap_replicates": 0}, "positive"),
        ("probe", {"bootstrap_replicates": 10.5}, "wrong type"),
    ],
)
def test_wrong_options_are_refused(name, options, said):
    with pytest.raises(ConfigError) as caught:
        make_task(name, options)
    assert said in str(caught.value)


def test_an_integer_serves_where_a_number_is_asked_for():
    assert make_task("align", {"temperature": 1}).options["temperature"] == 1


@pytest.mark.parametrize(("models", "name", "options"), TRAINED, ids=kind_name)
def test_modes_and_gradients(models, name, options):
    task, modules = kind_of(models, name, options), make_modules(models)
    cohort = make_cohort(9)
    before = {module: export_tensors(modules[module]) for module in task.reads}
    state, batch = open_and_load(task, modules, cohort, models)
    loss = task.loss(modules, batch, state, generator=torch.Generator().manual_seed(0))
    loss.total.backward()
    for module in task.trains:
        assert modules[module].training
        for parameter_name, parameter in modules[module].named_parameters():
            fixed = name in ("ecg_mae", "cmr_mae") and parameter_name == "position"
            assert (parameter.grad is None) == fixed, f"{module}.{parameter_name}"
    for module in task.reads:
        assert not modules[module].training
        assert all(p.grad is None and not p.requires_grad for p in modules[module].parameters())
        for key, value in export_tensors(modules[module]).items():
            assert np.array_equal(value, before[module][key])


@pytest.mark.parametrize(("models", "name", "options"), TRAINED, ids=kind_name)
def test_per_sample_losses_average_to_the_total(models, name, options):
    task, modules = kind_of(models, name, options), make_modules(models)
    state, batch = open_and_load(task, modules, make_cohort(9), models)
    loss = task.loss(modules, batch, state, generator=torch.Generator().manual_seed(0))
    assert loss.total.ndim == 0
    if task.decomposes:
        assert loss.per_sample_B.shape == (9,)
        assert torch.allclose(loss.per_sample_B.mean(), loss.total)
    else:
        assert loss.per_sample_B is None


def test_an_absent_module_is_named():
    modules = make_modules()
    del modules["cmr_encoder"]
    with pytest.raises(OrderRefusedError, match="cmr_encoder"):
        make_task("align", {}).prepare_modules(modules)


@pytest.mark.parametrize("name", ["ecg_mae", "cmr_mae"])
def test_reconstruction_sums_do_not_hide_the_seed_and_count_rows(name):
    task, modules = make_task(name, {}), make_modules()
    cohort = make_cohort(10, split=2, patients=4)

    def measure(seed: int):
        return task.metric_sums(modules, view(cohort), split="test", seed=seed)

    sums = measure(3)
    assert sums["n_rows"].tolist() == [10.0]
    assert sums["n_patients"].tolist() == [4.0]
    assert all(np.array_equal(value, measure(3)[key]) for key, value in sums.items())
    assert measure(4)["masked_mse"] != sums["masked_mse"]
    metrics = task.metrics(sums)
    assert metrics["masked_mse"] == pytest.approx(sums["masked_mse"][0] / 10)
    assert -1.0 <= metrics["correlation"] <= 1.0
    assert task.primary in metrics


def test_retrieval_of_a_perfect_and_of_a_collapsed_model():
    task, modules, cohort = make_task("align", {}), make_modules(), make_cohort(20, split=2)

    class Label(torch.nn.Module):
        """Gives the row's number back, which the first counts of its recording carry."""

        def forward(self, inputs):
            return torch.eye(64)[inputs.flatten(1).argmax(dim=1) % 64].reshape(-1, 64)

    for projection in ("ecg_projection", "cmr_projection"):
        modules[projection] = torch.nn.Identity()
    modules["ecg_encoder"] = modules["cmr_encoder"] = Label()
    for row in range(20):
        cohort.ecg_counts[row * 12000 : (row + 1) * 12000] = 0
        # Three peaks, one for each evaluation window, at the same place of each window.
        for start in (0, 125, 250):
            cohort.ecg_counts[row * 12000 + start + row] = 900
        cohort.cines[row] = 0
        cohort.cines[row, :, :3, 3 * row : 3 * row + 3] = 255
    sums = task.metric_sums(modules, view(cohort), split="test", seed=0)
    perfect = task.metrics(sums)
    assert perfect["recall@1"] == 1.0
    assert perfect["median_rank"] == 1.0
    assert perfect["cosine"] == pytest.approx(1.0)
    assert perfect["gallery"] == 20.0
    for prefix in ("full/", "cmr_to_ecg/", "cmr_to_ecg/full/"):
        assert (perfect[f"{prefix}recall@1"], perfect[f"{prefix}median_rank"]) == (1.0, 1.0)

    cohort.ecg_counts[:] = 0
    collapsed = task.metrics(task.metric_sums(modules, view(cohort), split="test", seed=0))
    assert collapsed["recall@10"] <= 1 / 20, "ties must not be hits"


def test_a_gallery_has_one_row_of_a_patient():
    task, modules = make_task("align", {}), make_modules()
    many = make_cohort(30, split=2, patients=7)
    assert task.metric_sums(modules, view(many), split="test", seed=0)["n_rows"] == 7.0


@pytest.mark.parametrize(("models", "name", "options"), KINDS, ids=kind_name)
def test_sums_of_sites_add_and_sites_without_rows_change_nothing(models, name, options):
    quick = {"bootstrap_replicates": 20} if name == "probe" else {}
    task, modules = kind_of(models, name, {**quick, **options}), make_modules(models)
    sites = {
        "a": make_cohort(12, site="a", split=2),
        "b": make_cohort(11, site="b", seed=1, split=2),
        "c": make_cohort(0, site="c"),
    }
    by_site = {
        site: task.metric_sums(modules, view(cohort, models), split="test", seed=0)
        for site, cohort in sites.items()
    }
    assert all(
        value.dtype == np.float64 and value.ndim > 0 for sums in by_site.values() for value in sums.values()
    )
    assert all(not value.any() for value in by_site["c"].values())
    total = add_sums(by_site)
    assert total["n_rows"].tolist() == [23.0]
    metrics = task.metrics(total)
    assert task.primary in metrics
    assert all(np.isfinite(value) for value in metrics.values())
    nothing = task.metrics(by_site["c"])
    assert task.primary not in nothing
    assert nothing["n_rows"] == 0.0


def test_pooled_cohort_gives_the_same_row_counts():
    pooled = concatenate([make_cohort(5, split=2), make_cohort(6, seed=1, split=2)], site="all")
    sums = make_task("ecg_mae", {}).metric_sums(make_modules(), view(pooled), split="test", seed=0)
    assert (sums["n_rows"], sums["n_patients"]) == (11.0, 11.0)
