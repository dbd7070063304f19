"""The probe: federated sums give the pooled ridge; missing values and limits (SCIENCE 5.5, 8.10, 8.20)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import SourceInvalidError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module, input_shape
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.ridge import PENALTIES, gram_sums, solve_ridge
from cardionets_core.training.tensors import load_tensors

NANO = InputShape(**input_shape("nano")._asdict())
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Bytes repeat with a fixed number of threads, and small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_table(rows: int, *, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Six features, three columns: two of them linear in the features, one of noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)) * [1.0, 2.0, 0.5, 1.0, 3.0, 1.0] + 1.0
    signal = np.stack([x[:, 0] - x[:, 1], 40.0 * x[:, 2] + 150.0, np.zeros(rows)], axis=1)
    return x, signal + noise * rng.normal(size=(rows, 3)) * [1.0, 10.0, 1.0]


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=NANO, device=torch.device("cpu"))


def make_cohort(rows: int, *, site: str, seed: int) -> Cohort:
    """Records of different lengths, the splits in turn, phenotypes that a slow wave explains."""
    rng = np.random.default_rng(seed)
    samples = rng.choice([750, 751, 900, 1300], size=rows)
    offsets = np.concatenate([[0], np.cumsum(samples)[:-1]])
    shares = rng.normal(size=rows)
    # The share of a slow wave in noise is seen by the patches; plain amplitude is not, by their layer norm.
    wave = [np.exp(share) * np.sin(np.arange(n) / 12.0) for n, share in zip(samples, shares, strict=True)]
    ecg = [rng.normal(size=(12, len(w))) + w for w in wave]
    phenotypes = (shares[:, None] * 5.0 + rng.normal(size=(rows, 82)) + 60.0).astype(np.float32)
    phenotypes[:, 7] = np.nan
    phenotypes[::2, 9] = np.nan
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=np.concatenate([(200 * e).astype(np.int16).ravel() for e in ecg]),
        ecg_offsets=offsets,
        ecg_samples=samples,
        cines=np.zeros((0, 50, 96, 96), dtype=np.uint8),
        row_patient=np.arange(rows) // 2,
        row_split=((np.arange(rows) // 2) % 3).astype(np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.full(rows, -1),
        phenotypes=phenotypes,
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )


def test_ridge_without_missing_values_equals_scikit_learn():
    x, y = make_table(200)
    sums, none = gram_sums(x, y), gram_sums(x[:0], y[:0])
    found = solve_ridge(sums, none, fallback_penalty=0.3)
    assert found.penalty == 0.3
    for column in range(3):
        scale, spread = x.std(axis=0), y[:, column].std()
        model = Ridge(alpha=0.3 * 200).fit((x - x.mean(axis=0)) / scale, y[:, column] / spread)
        weight = model.coef_ * spread / scale
        assert np.allclose(found.weight_KD[column], weight, rtol=1e-8)
        assert found.bias_K[column] == pytest.approx(y[:, column].mean() - weight @ x.mean(axis=0), rel=1e-8)


@given(cuts=st.tuples(st.integers(0, 200), st.integers(0, 200)), missing=st.floats(0.0, 0.9))
@settings(max_examples=20, deadline=None)
def test_sums_of_parts_give_the_pooled_solution(cuts, missing):
    x, y = make_table(200)
    y[np.random.default_rng(1).random(y.shape) < missing] = np.nan
    held = gram_sums(*make_table(50, seed=2))
    low, high = sorted(cuts)
    parts = {
        str(i): gram_sums(x[s], y[s])
        for i, s in enumerate((slice(0, low), slice(low, high), slice(high, 200)))
    }
    pooled = solve_ridge(gram_sums(x, y), held, fallback_penalty=0.1)
    federated = solve_ridge(add_sums(parts), held, fallback_penalty=0.1)
    assert federated.penalty == pooled.penalty
    assert np.allclose(federated.weight_KD, pooled.weight_KD, rtol=1e-9, atol=1e-12)
    assert np.allclose(federated.bias_K, pooled.bias_K, rtol=1e-9, atol=1e-12)


def test_the_penalty_is_the_best_of_the_grid_on_validation_rows():
    x, y = make_table(15, noise=3.0)
    held_x, held_y = make_table(80, seed=3, noise=3.0)
    found = solve_ridge(gram_sums(x, y), gram_sums(held_x, held_y), fallback_penalty=0.1)
    errors = {}
    for penalty in PENALTIES:
        tried = solve_ridge(gram_sums(x, y), gram_sums(x[:0], y[:0]), fallback_penalty=penalty)
        residual = held_y - held_x @ tried.weight_KD.T - tried.bias_K
        errors[penalty] = ((residual / y.std(axis=0)) ** 2).mean()
    assert found.penalty == min(errors, key=errors.get)
    assert PENALTIES[0] < found.penalty < PENALTIES[-1]


def test_rare_constant_and_missing_columns_stay_zero():
    x, y = make_table(60)
    y = np.concatenate([y, np.full((60, 1), 7.0)], axis=1)
    y[:, 0] = np.nan
    y[9:, 1] = np.nan
    found = solve_ridge(gram_sums(x, y), gram_sums(x, y), fallback_penalty=0.1)
    assert found.trained_K.tolist() == [False, False, True, False]
    assert not found.weight_KD[[0, 1, 3]].any()
    assert not found.bias_K[[0, 1, 3]].any()
    alone = solve_ridge(gram_sums(x, y[:, 2:3]), gram_sums(x, y[:, 2:3]), fallback_penalty=found.penalty)
    assert np.allclose(found.weight_KD[2], alone.weight_KD[0]), "a missing column disturbs no other"


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_train_nothing(rows):
    x, y = make_table(rows)
    found = solve_ridge(gram_sums(x, y), gram_sums(x, y), fallback_penalty=0.1)
    assert not found.weight_KD.any()
    assert not found.bias_K.any()


def test_a_dead_feature_gets_no_weight():
    x, y = make_table(60)
    x[:, 4] = 2.5
    assert not solve_ridge(gram_sums(x, y), gram_sums(x, y), fallback_penalty=0.1).weight_KD[:, 4].any()


def test_federated_probe_equals_pooled_and_scikit_learn():
    task = make_task("probe", {"bootstrap_replicates": 200})
    encoder = build_module("ecg_encoder", "nano", seed=0)
    sites = {name: make_cohort(60, site=name, seed=seed) for seed, name in enumerate("ab")}
    pooled = concatenate(list(sites.values()), site="all")
    modules = {"ecg_encoder": encoder, "phenotype_probe": build_module("phenotype_probe", "nano", seed=0)}
    task.prepare_modules(modules)

    together = task.solve(task.sums(modules, view(pooled)))
    apart = task.solve(add_sums({s: task.sums(modules, view(c)) for s, c in sites.items()}))
    assert apart["weight"].dtype == np.float32
    assert apart["weight"].shape == (82, 64)
    # fp32 features of batches of other sizes differ in their last bit.
    assert np.allclose(apart["weight"], together["weight"], rtol=1e-4, atol=1e-4)
    assert not apart["weight"][7].any()

    load_tensors(modules["phenotype_probe"], apart)

    def measure(cohort):
        return task.metric_sums(modules, view(cohort), split="test", seed=0)

    metrics = task.metrics(add_sums({site: measure(cohort) for site, cohort in sites.items()}))
    rows = pooled.rows(task.needs, "test", NANO)
    features = ecg_features(encoder, view(pooled), rows).numpy()
    predicted = features @ apart["weight"].astype(np.float64).T + apart["bias"]
    target = pooled.phenotypes[rows].astype(np.float64)
    kept = [column for column in range(82) if column != 7]
    expected = {}
    for column in kept:
        present = np.isfinite(target[:, column])
        expected[column] = r2_score(target[present, column], predicted[present, column])
        assert metrics[f"r2/{24100 + column}"] == pytest.approx(expected[column], abs=1e-6)
    assert metrics["r2_mean"] == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    assert metrics["columns"] == 81.0
    assert "r2/24107" not in metrics
    assert metrics["r2_mean_low"] < metrics["r2_mean"] < metrics["r2_mean_high"]
    assert metrics["r2_mean"] > 0.2, "the wave explains the phenotypes"


def test_repeated_windows_count_once():
    cohort = make_cohort(8, site="a", seed=0)
    cohort.ecg_samples[:] = 751
    cohort.ecg_offsets[:] = np.arange(8) * 751
    cohort.ecg_counts[:] = np.random.default_rng(0).integers(-900, 900, len(cohort.ecg_counts))
    encoder = build_module("ecg_encoder", "nano", seed=0)
    rows = np.arange(8)
    found = ecg_features(encoder, view(cohort), rows)
    with torch.no_grad():
        first, last = (
            encoder(cohort.batch(rows, keys=frozenset({"ecg"}), shape=NANO, window=w).ecg_BLT) for w in (0, 1)
        )
    assert torch.allclose(found.float(), (first + last) / 2, atol=1e-6)
    assert ecg_features(encoder, view(cohort), rows[:0]).shape == (0, 0)


def test_a_foreign_number_of_columns_is_refused():
    cohort = make_cohort(6, site="a", seed=0)
    object.__setattr__(cohort, "phenotypes", cohort.phenotypes[:, :5])
    modules = {name: build_module(name, "nano", seed=0) for name in ("ecg_encoder", "phenotype_probe")}
    with pytest.raises(SourceInvalidError, match="5 phenotype columns"):
        make_task("probe", {}).sums(modules, view(cohort))
