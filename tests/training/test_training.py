"""Local training: rates, seeds, tensors, one round (SCIENCE 5.6, 8.6, 8.11, 8.14)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError, NonFiniteLossError, OrderRefusedError
from cardionets_core.models import MODULES, build_module, input_shape
from cardionets_core.tasks import SiteView, TaskLoss, make_task
from cardionets_core.tasks.base import GradientTask
from cardionets_core.training import derive_seed, export_tensors, learning_rate, load_tensors, train_locally
from cardionets_core.training.local import steps_in_round
from cardionets_core.training.optimiser import build_optimiser
from cardionets_core.training.schedule import peak_rate, step_progress, units_per_round

NANO = InputShape(**input_shape("nano")._asdict())
ADAMW = Optimiser(lr=1e-3)


@pytest.fixture(autouse=True)
def one_thread():
    """Bytes repeat with a fixed number of threads, and small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cohort(rows: int, *, seed: int = 0) -> Cohort:
    """Rows with an ECG of four seconds and a cine, two rows of each patient."""
    rng = np.random.default_rng(seed)
    return Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, rows * 12 * 1000).astype(np.int16),
        ecg_offsets=np.arange(rows) * 1000,
        ecg_samples=np.full(rows, 1000),
        cines=rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows) // 2,
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.arange(rows),
        phenotypes=np.full((rows, 82), np.nan, dtype=np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )


def make_phase(task: str = "cmr_mae", **changes) -> Phase:
    settings = {"task": task, "rounds": 2, "local_epochs": 1, "batch_size": 8, "optimiser": ADAMW}
    return Phase(**{**settings, **changes})


def run(task: str, modules, cohort, *, phase: Phase, round_index: int = 1, seed: int = 3, **more):
    return train_locally(
        make_task(task, {}),
        modules,
        view(cohort),
        phase=phase,
        round_index=round_index,
        seed=seed,
        **more,
    )


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=NANO, device=torch.device("cpu"))


def make_modules() -> dict[str, torch.nn.Module]:
    return {name: build_module(name, "nano", seed=1) for name in MODULES}


def snapshot(modules) -> dict[str, bytes]:
    return {
        f"{name}.{key}": value.tobytes()
        for name, module in modules.items()
        for key, value in export_tensors(module).items()
    }


@given(warmup=st.floats(0, 12), schedule=st.sampled_from(["cosine", "constant"]))
@settings(max_examples=30, deadline=None)
def test_rate_of_a_global_step_does_not_depend_on_the_rounds(warmup, schedule):
    spec = Optimiser(lr=0.1, warmup=warmup, schedule=schedule, minimum_lr=1e-4)
    rates = []
    for rounds, steps in ((1, 10), (10, 1), (2, 5)):
        phase = Phase(task="x", rounds=rounds, local_steps=steps, optimiser=spec)
        total = rounds * units_per_round(phase)
        rates.append(
            [
                learning_rate(
                    spec,
                    peak=0.1,
                    progress=step_progress(phase, round_index=r, step=s, steps=steps),
                    total=total,
                )
                for r in range(1, rounds + 1)
                for s in range(steps)
            ]
        )
    assert rates[0] == rates[1] == rates[2]
    assert all(0 < rate <= 0.1 for rate in rates[0])


def test_epochs_of_unequal_sites_share_one_schedule():
    spec = Optimiser(lr=1.0, warmup=0.5)
    phase = Phase(task="x", rounds=4, local_epochs=1, optimiser=spec)
    small = [step_progress(phase, round_index=3, step=s, steps=2) for s in range(2)]
    large = [step_progress(phase, round_index=3, step=s, steps=20) for s in range(20)]
    assert np.mean(small) == pytest.approx(np.mean(large)) == pytest.approx(2.5)


def test_rates_have_their_closed_forms():
    spec = Optimiser(blr=1e-3, warmup=2.0, minimum_lr=1e-5)
    peak = peak_rate(spec, 64)
    assert peak == pytest.approx(2.5e-4)

    def rate(progress: float) -> float:
        return learning_rate(spec, peak=peak, progress=progress, total=10.0)

    assert rate(1.0) == pytest.approx(peak / 2)
    assert rate(2.0) == pytest.approx(peak)
    assert rate(6.0) == pytest.approx((peak + 1e-5) / 2)
    assert rate(10.0) == pytest.approx(1e-5)
    assert peak_rate(ADAMW, 64) == 1e-3


def test_seeds_are_63_bit_and_tell_their_parts_apart():
    seeds = [
        derive_seed(1, "a"),
        derive_seed("1", "a"),
        derive_seed(1, "b"),
        derive_seed("1a"),
        derive_seed(1),
    ]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, "align", 2) == derive_seed(7, "align", 2)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_tensors_survive_the_way_out_and_in(name):
    module, other = build_module(name, "nano", seed=0), build_module(name, "nano", seed=9)
    tensors = export_tensors(module)
    assert list(tensors) == [key for key, _ in module.named_parameters()]
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in tensors.values())
    load_tensors(other, tensors)
    assert all(np.array_equal(value, tensors[key]) for key, value in export_tensors(other).items())
    kept = {key: value.copy() for key, value in tensors.items()}
    for value in tensors.values():
        value += 1.0
    # What goes out is a copy: changing it does not reach the module.
    assert all(np.array_equal(value, kept[key]) for key, value in export_tensors(module).items())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.pop("bias"), "bias is absent"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "extra is unknown"),
        (lambda t: t.update(bias=np.zeros(5, np.float32)), "shape"),
        (lambda t: t.update(bias=np.zeros(32)), "float64"),
        (lambda t: t.update(bias=np.full(32, np.inf, np.float32)), "not finite"),
    ],
)
def test_tensors_that_do_not_fit_change_nothing(change, fault):
    module = build_module("ecg_projection", "nano", seed=0)
    before = snapshot({"m": module})
    tensors = export_tensors(build_module("ecg_projection", "nano", seed=1))
    change(tensors)
    with pytest.raises(OrderRefusedError, match=fault):
        load_tensors(module, tensors)
    assert snapshot({"m": module}) == before


def test_weight_decay_spares_norms_biases_and_tokens():
    modules = {"ecg_encoder": build_module("ecg_encoder", "nano", seed=0)}
    optimiser = build_optimiser(modules, ("ecg_encoder",), spec=ADAMW, lr=1e-3)
    decayed, plain = (group["params"] for group in optimiser.param_groups)
    assert {p.ndim for p in decayed} == {2}
    encoder = modules["ecg_encoder"]
    spared = {id(p) for p in plain}
    assert {id(encoder.position), id(encoder.lead), id(encoder.separator), id(encoder.norm.weight)} <= spared
    assert len(decayed) == 1 + 4 * 2
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.05, 0.0]


@pytest.mark.parametrize("task", ["ecg_mae", "cmr_mae", "align"])
def test_a_round_repeats_bitwise_and_leaves_frozen_modules_alone(task):
    cohort, results, states = make_cohort(20), [], []
    for _ in range(2):
        modules = make_modules()
        before = snapshot(modules)
        torch.manual_seed(len(results))
        results.append(run(task, modules, cohort, phase=make_phase(task)))
        states.append(snapshot(modules))
    assert results[0] == results[1]
    assert states[0] == states[1]
    trains = make_task(task, {}).trains
    changed = {key for key, value in states[0].items() if value != before[key]}
    assert {key.partition(".")[0] for key in changed} == set(trains)
    if task != "align":
        assert f"{trains[0]}.position" not in changed
    # The last four rows are under the minimum of align, and are not counted.
    assert (results[0].samples, results[0].steps) == ((16, 2) if task == "align" else (20, 3))
    assert 8 <= results[0].patients <= 10


def test_seed_and_round_change_the_order():
    cohort, states = make_cohort(20), set()
    for seed, round_index in ((3, 1), (3, 2), (4, 1)):
        modules = make_modules()
        run("cmr_mae", modules, cohort, phase=make_phase(), seed=seed, round_index=round_index)
        states.add(snapshot(modules)["cmr_encoder.embed.weight"])
    assert len(states) == 3


def test_the_loss_falls():
    modules, cohort, losses = make_modules(), make_cohort(24), []
    phase = make_phase("ecg_mae", rounds=3, local_epochs=2)
    for round_index in range(1, 4):
        losses.append(run("ecg_mae", modules, cohort, phase=phase, round_index=round_index).loss_mean)
    assert losses == sorted(losses, reverse=True)


def test_no_rows_change_nothing():
    modules = make_modules()
    before = snapshot(modules)
    for rows, task in ((0, "ecg_mae"), (0, "align"), (7, "align")):
        result = run(task, modules, make_cohort(rows), phase=make_phase(task))
        assert (result.samples, result.patients, result.steps, result.loss_mean) == (0, 0, 0, 0.0)
    assert snapshot(modules) == before


def test_one_row_is_a_batch():
    result = run("ecg_mae", make_modules(), make_cohort(1), phase=make_phase("ecg_mae"))
    assert (result.samples, result.patients, result.steps) == (1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "minimum", "length", "steps"),
    [
        (20, 1, {"local_epochs": 1}, 3),
        (20, 8, {"local_epochs": 1}, 2),
        (20, 1, {"local_epochs": 0.5}, 2),
        (20, 1, {"local_epochs": 0.01}, 1),
        (20, 1, {"local_epochs": 2.5}, 8),
        (20, 1, {"local_epochs": None, "local_steps": 7}, 7),
        (7, 8, {"local_epochs": None, "local_steps": 7}, 0),
        (0, 1, {"local_epochs": 3}, 0),
    ],
)
def test_steps_in_a_round(rows, minimum, length, steps):
    assert steps_in_round(make_phase(**length), rows=rows, minimum_batch=minimum) == steps


class Recorder(GradientTask):
    """Notes the patients of each batch; its loss is ``w`` or what the test says."""

    name, trains, needs, decomposes = "recorder", ("m",), frozenset({"ecg"}), True

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__({})
        self.factor, self.seen = factor, []

    def loss(self, modules, batch, state, *, generator):
        self.seen.append(batch.patient_B.tolist())
        return TaskLoss(total=self.factor * modules["m"].weight.sum(), parts={"rows": float(batch.size)})

    def metric_sums(self, modules, site, *, split, seed):
        return {}

    def metrics(self, sums):
        return {}


def train_recorder(task: Recorder, phase: Phase, rows: int = 20, progress=None):
    modules = {"m": torch.nn.Linear(1, 1, bias=False)}
    torch.nn.init.ones_(modules["m"].weight)
    cohort = make_cohort(rows)
    cohort.row_patient[:] = np.arange(rows)
    result = train_locally(task, modules, view(cohort), phase=phase, round_index=1, seed=0, progress=progress)
    return result, float(modules["m"].weight.detach())


def test_an_epoch_shows_each_row_once():
    task = Recorder()
    told = []
    result, _ = train_recorder(
        task, make_phase("recorder", local_epochs=2), progress=lambda *step: told.append(step[:2])
    )
    for epoch in (task.seen[:3], task.seen[3:]):
        assert sorted(itertools.chain(*epoch)) == list(range(20))
    assert task.seen[:3] != task.seen[3:]
    assert (result.samples, result.steps) == (20, 6)
    assert result.parts["rows"] == pytest.approx((8 * 8 + 8 * 8 + 4 * 4) / 20)
    assert told == [(step, 6) for step in range(1, 7)]


def test_sgd_has_its_closed_form_and_the_norm_is_clipped():
    sgd = Optimiser(name="sgd", lr=0.1, schedule="constant", weight_decay=0.0)
    _, weight = train_recorder(Recorder(), make_phase("recorder", optimiser=sgd))
    assert weight == pytest.approx(1.0 - 3 * 0.1)
    clipped = sgd.model_copy(update={"clip_norm": 0.5})
    _, weight = train_recorder(Recorder(factor=100.0), make_phase("recorder", optimiser=clipped))
    assert weight == pytest.approx(1.0 - 3 * 0.1 * 0.5, rel=1e-5)


def test_a_loss_or_weight_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteLossError, match="the loss of task recorder"):
        train_recorder(Recorder(factor=float("nan")), make_phase("recorder"))
    explosive = Optimiser(name="sgd", lr=1e38, schedule="constant", weight_decay=0.0)
    with pytest.raises(NonFiniteLossError, match="a weight of task recorder"):
        train_recorder(Recorder(factor=1e30), make_phase("recorder", optimiser=explosive), rows=8)


def test_phases_that_cannot_be_trained_are_refused():
    modules, cohort = make_modules(), make_cohort(20)
    with pytest.raises(ConfigError, match="solved from sums"):
        run("probe", modules, cohort, phase=make_phase("probe"))
    with pytest.raises(ConfigError, match="no optimiser"):
        run("ecg_mae", modules, cohort, phase=Phase(task="ecg_mae", rounds=1))
    with pytest.raises(ConfigError, match="under the 8"):
        run("align", modules, cohort, phase=make_phase("align", batch_size=4))
