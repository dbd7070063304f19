"""What lasts over steps and rounds: moments, parts of a batch, batches made ahead, precision."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError
from cardionets_core.models import build_module, input_shape
from cardionets_core.tasks import GradientTask, SiteView, TaskLoss, make_task
from cardionets_core.training import Numerics, export_tensors, train_locally
from cardionets_core.training.memory import InProcess, export_state, import_state
from cardionets_core.training.optimiser import build_optimiser
from cardionets_core.training.plan import ahead

NANO = InputShape(**input_shape("nano")._asdict())
CPU = torch.device("cpu")
MOMENTUM = Optimiser(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.0, schedule="constant")


def make_site(rows: int) -> SiteView:
    rng = np.random.default_rng(0)
    cohort = Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, rows * 12 * 1000).astype(np.int16),
        ecg_offsets=np.arange(rows) * 1000,
        ecg_samples=np.full(rows, 1000),
        cines=np.zeros((0, 50, 96, 96), dtype=np.uint8),
        row_patient=np.arange(rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.full(rows, -1),
        phenotypes=np.full((rows, 82), np.nan, dtype=np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )
    return SiteView(cohort=cohort, shape=NANO, device=CPU)


class Slope(GradientTask):
    """Its loss is the weight times the mean patient number: the gradient of a batch is that mean."""

    name, trains, needs, decomposes = "slope", ("m",), frozenset({"ecg"}), True
    batch_keys = frozenset()

    def loss(self, modules, batch, state, *, generator):
        per_sample = modules["m"].weight.sum() * batch.patient_B.float()
        return TaskLoss(total=per_sample.mean(), per_sample_B=per_sample, parts={"mean": batch.size * 1.0})

    def metric_sums(self, modules, site, *, split, seed):
        return {}

    def metrics(self, sums):
        return {}


def slope_after(phase: Phase, *, rows: int, memory=None, task=None, rounds: int | None = None) -> float:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    for number in range(1, (rounds or phase.rounds) + 1):
        train_locally(
            task or Slope({}), {"m": module}, make_site(rows), phase=phase, round_index=number, seed=1,
            memory=memory,
        )  # fmt: skip
    return float(module.weight.detach())


def make_phase(**changes) -> Phase:
    settings = {"task": "slope", "rounds": 1, "local_epochs": 1, "batch_size": 5, "optimiser": MOMENTUM}
    return Phase(**{**settings, **changes})


def test_moments_that_persist_make_two_rounds_one():
    """One full batch has the same gradient at each step, so momentum has a closed form over the rounds."""
    persist = MOMENTUM.model_copy(update={"state": "persist"})
    velocities = np.cumsum([0.9**k for k in range(4)])  # of gradient 1
    expected = -0.1 * 2.0 * velocities.sum()  # patients 0 to 4: the mean is 2
    two = make_phase(rounds=2, local_epochs=None, local_steps=2, optimiser=persist)
    one = make_phase(rounds=1, local_epochs=None, local_steps=4, optimiser=persist)
    assert slope_after(two, rows=5, memory=InProcess()) == pytest.approx(expected)
    assert slope_after(one, rows=5, memory=InProcess()) == pytest.approx(expected)
    forgetful = two.model_copy(update={"optimiser": MOMENTUM})
    assert slope_after(forgetful, rows=5) == pytest.approx(-0.1 * 2.0 * 2 * velocities[:2].sum())


def test_a_round_that_is_asked_for_again_begins_where_it_began():
    persist = make_phase(
        rounds=2, local_epochs=None, local_steps=2, optimiser=MOMENTUM.model_copy(update={"state": "persist"})
    )
    memory = InProcess()
    slope_after(persist, rows=5, memory=memory)
    state = memory.recall(2)
    module = torch.nn.Linear(1, 1, bias=False)
    for _ in range(2):
        torch.nn.init.zeros_(module.weight)
        train_locally(
            Slope({}), {"m": module}, make_site(5), phase=persist, round_index=2, seed=1, memory=memory
        )
        again = float(module.weight.detach())
        assert again == pytest.approx(-0.1 * 2.0 * sum(np.cumsum([0.9**k for k in range(4)])[2:]))
    assert memory.recall(2).keys() == state.keys()


def test_persisting_needs_a_place():
    phase = make_phase(optimiser=MOMENTUM.model_copy(update={"state": "persist"}))
    with pytest.raises(ConfigError, match="needs a place"):
        slope_after(phase, rows=5)


def test_adam_state_survives_the_way_out_and_in():
    module = torch.nn.Linear(3, 2)
    first = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        module(torch.ones(1, 3)).square().sum().backward()
        first.step()
        first.zero_grad()
    state = export_state(first, {"m": module}, ("m",))
    assert sorted(state) == sorted(
        f"m/{p}/{key}" for p in ("weight", "bias") for key in ("step", "exp_avg", "exp_avg_sq")
    )
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(module.state_dict())
    second = torch.optim.AdamW(twin.parameters(), lr=0.1, fused=True)
    import_state(second, {"m": twin}, ("m",), state=state)
    for net, optimiser in ((module, first), (twin, second)):
        net(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()
    assert torch.equal(module.weight, twin.weight) and torch.equal(module.bias, twin.bias)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_of_a_batch_add_up_to_it(parts):
    whole = slope_after(make_phase(), rows=5)
    assert slope_after(make_phase(accumulate=parts), rows=5) == pytest.approx(whole, rel=1e-6)


def test_a_loss_that_couples_rows_is_not_taken_in_parts():
    class Coupled(Slope):
        decomposes = False

    with pytest.raises(ConfigError, match="couples the rows"):
        slope_after(make_phase(accumulate=2), rows=5, task=Coupled({}))


def train_mae(numerics: Numerics, site: SiteView | None = None) -> dict[str, bytes]:
    modules = {name: build_module(name, "nano", seed=1) for name in ("ecg_encoder", "ecg_decoder")}
    phase = Phase(task="ecg_mae", rounds=1, local_epochs=1, batch_size=4, optimiser=Optimiser(lr=1e-3))
    result = train_locally(
        make_task("ecg_mae", {}), modules, site or make_site(11), phase=phase, round_index=1, seed=1,
        numerics=numerics,
    )  # fmt: skip
    tensors = {k: v for name in modules for k, v in export_tensors(modules[name]).items()}
    assert all(value.dtype == np.float32 for value in tensors.values())
    return {"loss": np.float64(result.loss_mean).tobytes(), **{k: v.tobytes() for k, v in tensors.items()}}


@pytest.mark.parametrize("count", [1, 3, 50])
def test_batches_made_ahead_change_no_byte_and_leave_no_thread(count):
    before = threading.active_count()
    assert train_mae(Numerics(prefetch=count)) == train_mae(Numerics())
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_thread_is_raised_at_the_step():
    def broken():
        yield from ()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(ahead(broken(), count=2, device=CPU))


def test_bf16_is_near_fp32_and_keeps_the_weights_in_fp32():
    exact = np.frombuffer(train_mae(Numerics())["loss"])[0]
    rough = np.frombuffer(train_mae(Numerics(precision="bf16"))["loss"])[0]
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.02)


def test_dropout_repeats_and_leaves_the_callers_generator_alone():
    class Dropped(Slope):
        def loss(self, modules, batch, state, *, generator):
            kept = torch.nn.functional.dropout(torch.ones(64), 0.5).mean()
            return TaskLoss(total=modules["m"].weight.sum() * kept)

    torch.manual_seed(5)
    torch.nn.Linear(1, 1, bias=False)  # as slope_after draws one
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = slope_after(make_phase(), rows=5, task=Dropped({}))
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(6)
    assert slope_after(make_phase(), rows=5, task=Dropped({})) == first


# torch's compiler raises warnings of its own (names that torch deprecates, .grad of inner tensors).
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch", "ignore:The .grad attribute:UserWarning")
@pytest.mark.slow
def test_compiled_blocks_give_the_same_to_rounding():
    exact, compiled = train_mae(Numerics()), train_mae(Numerics(compile=True))
    for name in exact:
        a, b = (
            np.frombuffer(each[name], dtype="<f8" if name == "loss" else "<f4") for each in (exact, compiled)
        )
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_moments_that_come_back_lie_in_memory_as_their_parameters_do():
    """The tokenizer's kernels have channels last; a fused step reads two tensors in the order of memory."""
    spec = Optimiser(lr=0.01)
    tokenizers = [build_module("cmr_tokenizer", "nano", seed=3) for _ in range(2)]
    kernel = tokenizers[0].encoder[0].weight
    assert any(not p.is_contiguous() for p in tokenizers[0].parameters()) and kernel.ndim == 5
    steady, resumed = (
        build_optimiser({"cmr_tokenizer": each}, ["cmr_tokenizer"], spec=spec, lr=0.01) for each in tokenizers
    )
    for step in range(3):
        if step == 2:
            kept = export_state(resumed, {"cmr_tokenizer": tokenizers[1]}, ["cmr_tokenizer"])
            assert all(value.is_contiguous() for value in kept.values())
            resumed = build_optimiser({"cmr_tokenizer": tokenizers[1]}, ["cmr_tokenizer"], spec=spec, lr=0.01)
            import_state(resumed, {"cmr_tokenizer": tokenizers[1]}, ["cmr_tokenizer"], state=kept)
        for module, optimiser in zip(tokenizers, (steady, resumed), strict=True):
            draw = torch.Generator().manual_seed(step)
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            optimiser.step()
    for name, value in export_tensors(tokenizers[0]).items():
        assert np.array_equal(value, export_tensors(tokenizers[1])[name]), name
