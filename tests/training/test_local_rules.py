"""What strategies ask of the sites' steps, in closed form on a quadratic.

Site k has the loss ``a / 2 * |w - b_k|^2``, so a step of rate r without a proximal term is
``w - b <- (1 - r a) (w - b)``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Optimiser, Phase, Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError, NonFiniteLossError
from cardionets_core.models import input_shape
from cardionets_core.tasks import GradientTask, SiteView, TaskLoss
from cardionets_core.training.controls import change_of, mark, next_control, shift_of
from cardionets_core.training.first_loss import first_loss
from cardionets_core.training.local import train_locally
from cardionets_core.training.local_rule import LocalRule, local_rule
from cardionets_core.training.pull import Distance, Pull

NANO = InputShape(**input_shape("nano")._asdict())
SIZE = 3


class Bowl(GradientTask):
    """The quadratic."""

    name, trains, needs, decomposes = "bowl", ("m",), frozenset({"ecg"}), True
    batch_keys = frozenset()

    def __init__(self, bottom, slope=1.0):
        super().__init__({})
        self.bottom, self.slope = torch.tensor(bottom, dtype=torch.float32), slope

    def loss(self, modules, batch, state, *, generator):
        value = 0.5 * self.slope * (modules["m"].weight[0] - self.bottom).square().sum()
        return TaskLoss(total=value, per_sample_B=value.expand(batch.size))

    def metric_sums(self, modules, site, *, split, seed):
        return {}

    def metrics(self, sums):
        return {}


def view(rows: int = 4) -> SiteView:
    cohort = Cohort(
        site="a", digest="a",
        ecg_counts=np.ones(rows * 12 * 1000, dtype=np.int16),
        ecg_offsets=np.arange(rows) * 1000, ecg_samples=np.full(rows, 1000),
        cines=np.zeros((0, 50, 96, 96), dtype=np.uint8),
        row_patient=np.arange(rows), row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows), row_cine=np.full(rows, -1),
        phenotypes=np.full((rows, 82), np.nan, dtype=np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )  # fmt: skip
    return SiteView(cohort=cohort, shape=NANO, device=torch.device("cpu"))


def sgd(**changes) -> Optimiser:
    return Optimiser(**{"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "schedule": "constant", **changes})


def train(start, bottom, *, steps, slope=1.0, pull=None, optimiser=None):
    """The weights after some steps, and the result."""
    module = torch.nn.Linear(SIZE, 1, bias=False)
    with torch.no_grad():
        module.weight[0] = torch.tensor(start, dtype=torch.float32)
    phase = Phase(task="bowl", rounds=1, local_steps=steps, batch_size=4, optimiser=optimiser or sgd())
    result = train_locally(
        Bowl(bottom, slope), {"m": module}, view(), phase=phase, round_index=1, seed=1, pull=pull
    )
    return module.weight.detach()[0].numpy().copy(), result


START, BOTTOM = [1.0, -2.0, 0.5], [0.0, 3.0, 0.5]


@pytest.mark.parametrize("mu", [0.0, 0.5, 4.0])
def test_the_proximal_term_has_its_closed_form(mu):
    """The point of rest is (b + mu w) / (1 + mu); each step goes a share of r (1 + mu) of what is left."""
    found, _ = train(START, BOTTOM, steps=5, pull=Pull(mu=mu))
    rest = (np.array(BOTTOM) + mu * np.array(START)) / (1 + mu)
    np.testing.assert_allclose(found, rest + (1 - 0.1 * (1 + mu)) ** 5 * (START - rest), rtol=1e-5, atol=1e-6)


def test_a_pull_of_zero_changes_no_byte():
    plain, _ = train(START, BOTTOM, steps=7)
    pulled, _ = train(START, BOTTOM, steps=7, pull=Pull(mu=0.0, anchor={"m": {"weight": torch.zeros(1, 3)}}))
    assert plain.tobytes() == pulled.tobytes()


def test_an_anchor_elsewhere_draws_there():
    """Ditto: drawn to the global model, not to where the personal one began."""
    anchor = {"m": {"weight": torch.tensor([[9.0, 9.0, 9.0]])}}
    found, _ = train(START, BOTTOM, steps=300, pull=Pull(mu=1.0, anchor=anchor))
    np.testing.assert_allclose(found, (np.array(BOTTOM) + 9.0) / 2, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_unit_gradient_goes_the_way_of_the_paper(steps):
    rate, momentum, mu = 0.1, 0.8, 0.5
    cases = {
        (0.0, 0.0): steps,
        # Wang et al. 2020, section 4.2: |a|_1 under momentum, and under a proximal term.
        (momentum, 0.0): (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum),
        (0.0, mu): (1 - (1 - rate * mu) ** steps) / (rate * mu),
    }
    for (m, u), expected in cases.items():
        distance = Distance(sgd(momentum=m), mu=u)
        for _ in range(steps):
            distance.step(rate)
        assert distance.normaliser == pytest.approx(expected, rel=1e-12)
        assert distance.way == pytest.approx(rate * expected, rel=1e-12)
    counted = Distance(Optimiser(lr=1e-3))
    for number in range(steps):
        counted.step(1e-3 / (number + 1))
    assert counted.normaliser == steps


def test_the_way_reads_the_mean_gradient_from_a_change():
    """Under a constant gradient the change over the way is that gradient, with momentum and any schedule."""
    spec = sgd(momentum=0.9, schedule="cosine", warmup=1.0)
    shift = {"m": {"weight": torch.tensor([[2.0, -1.0, 0.0]])}}
    found, result = train(START, START, steps=6, slope=0.0, pull=Pull(shift=shift), optimiser=spec)
    np.testing.assert_allclose((START - found) / result.way, [2.0, -1.0, 0.0], rtol=1e-5, atol=1e-6)


def test_clipping_does_not_touch_the_control_variate():
    shift = {"m": {"weight": torch.tensor([[5.0, 0.0, 0.0]])}}
    found, _ = train(START, START, steps=1, pull=Pull(shift=shift), optimiser=sgd(clip_norm=0.01))
    np.testing.assert_allclose(found, np.array(START) - [0.5, 0.0, 0.0], rtol=1e-6)


def scaffold_rounds(bottoms, *, rounds, steps, slopes):
    """Sites of unequal bowls, all taking part; the coordinator's side by hand."""
    w, control = np.array([4.0, 4.0, 4.0]), {"weight": np.zeros((1, SIZE), dtype=np.float32)}
    own = [{} for _ in bottoms]
    for _ in range(rounds):
        ends, changes = [], []
        for k, (bottom, slope) in enumerate(zip(bottoms, slopes, strict=True)):
            shift = {"m": {n: torch.from_numpy(v) for n, v in shift_of(control, own[k]).items()}}
            end, result = train(w, bottom, steps=steps, slope=slope, pull=Pull(shift=shift))
            after = next_control(
                start={"weight": w.reshape(1, -1).astype("f4")}, end={"weight": end.reshape(1, -1)},
                control=control, own=own[k], way=result.way,
            )  # fmt: skip
            changes.append(change_of(after, own[k])["weight"])
            ends.append(end)
            own[k] = after
        w = np.mean(ends, axis=0)
        control = {"weight": (control["weight"] + np.mean(changes, axis=0)).astype("f4")}
    return w, control, own


def test_scaffold_finds_the_optimum_of_unequal_sites_where_fedavg_does_not():
    bottoms, slopes = [[0.0, 1.0, 2.0], [3.0, 1.0, -2.0]], [1.0, 4.0]
    optimum = (np.array(bottoms[0]) + 4.0 * np.array(bottoms[1])) / 5.0
    w, control, own = scaffold_rounds(bottoms, rounds=40, steps=6, slopes=slopes)
    np.testing.assert_allclose(w, optimum, atol=1e-4)
    # At the optimum c is the gradient of the whole, zero, and each c_i that of its own bowl.
    np.testing.assert_allclose(control["weight"][0], 0.0, atol=1e-4)
    for bottom, slope, mine in zip(bottoms, slopes, own, strict=True):
        np.testing.assert_allclose(mine["weight"][0], slope * (optimum - bottom), atol=1e-3)
    plain = np.array([4.0, 4.0, 4.0])
    for _ in range(40):
        plain = np.mean(
            [train(plain, b, steps=6, slope=s)[0] for b, s in zip(bottoms, slopes, strict=True)], 0
        )
    assert np.abs(plain - optimum).max() > 0.1


def test_the_first_control_is_the_mean_gradient_of_the_round():
    """Option II: one step from x, so c_i+ is the gradient at x."""
    end, result = train(START, BOTTOM, steps=1, slope=2.0)
    found = next_control(
        start={"w": np.array(START, dtype="f4")}, end={"w": end}, control={"w": np.zeros(3, "f4")}, own={},
        way=result.way,
    )  # fmt: skip
    np.testing.assert_allclose(found["w"], 2.0 * (np.array(START) - BOTTOM), rtol=1e-5, atol=1e-6)


def test_marks_differ_by_site_phase_and_round_and_are_exact():
    marks = {mark(s, p, r) for s in ("a", "b", "a1") for p in (0, 1) for r in (1, 11)}
    assert len(marks) == 12 and all(each == int(each) < 2**48 for each in marks)


def test_the_first_loss_is_that_of_the_model_that_was_sent():
    module = torch.nn.Linear(SIZE, 1, bias=False)
    with torch.no_grad():
        module.weight[0] = torch.tensor(START)
    before = module.weight.detach().clone()
    phase = Phase(task="bowl", rounds=1, local_steps=2, batch_size=3, optimiser=sgd())
    ask = {"phase": phase, "round_index": 1, "seed": 1}
    state = torch.random.get_rng_state()
    found = first_loss(Bowl(BOTTOM, 3.0), {"m": module}, view(), **ask)
    assert found == pytest.approx(1.5 * float(np.sum((np.array(START) - BOTTOM) ** 2)), rel=1e-6)
    assert torch.equal(module.weight, before) and torch.equal(torch.random.get_rng_state(), state)
    assert first_loss(Bowl(BOTTOM), {"m": module}, view(0), **ask) == 0.0
    with pytest.raises(NonFiniteLossError):
        first_loss(Bowl([float("nan")] * 3), {"m": module}, view(), **ask)


def study(strategy, optimiser=None, **options) -> Study:
    phase = {"task": "ecg_mae", "rounds": 1, "local_steps": 1, "optimiser": optimiser or {"lr": 1e-3}}
    return Study.model_validate(
        {"name": "s", "phases": [phase], "aggregation": {"strategy": strategy, "options": options}}
    )


def test_the_rule_of_a_study():
    assert local_rule(study("fedavg")) == local_rule(study("median")) == LocalRule()
    assert local_rule(study("fedprox")).mu == 0.01
    assert local_rule(study("flower/fedprox", proximal_mu=2)).mu == 2.0
    assert local_rule(study("fedbn", local="*norm*, ecg_encoder.lead")).local == (
        "*norm*",
        "ecg_encoder.lead",
    )
    rule = local_rule(study("scaffold", {"name": "sgd", "lr": 0.1}))
    assert rule.extra_names(("a", "b")) == ("a.control", "b.control")
    assert local_rule(study("ditto", personal="*_head")).personal_of(("x", "a_head")) == ("a_head",)
    for strategy, options in (("fedprox", {"mu": -1}), ("ditto", {"lambda": "x"}), ("fedbn", {"local": ""})):
        with pytest.raises(ConfigError):
            local_rule(study(strategy, **options))
