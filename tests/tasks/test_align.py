"""Alignment: banks, roles, frozen modules, a step of many sites (SCIENCE 5.2, 5.3, 8.2, 8.3, 8.7, 8.11)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, smooth_l1_loss

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError, OrderRefusedError
from cardionets_core.evaluation import add_sums
from cardionets_core.losses import batch_moments, dcco_loss, distance_weights, info_nce, weighted_info_nce
from cardionets_core.models import build_module, input_shape
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.align_metrics import alignment_metrics, alignment_sums
from cardionets_core.tasks.bank import cine_bank, draw_entries
from cardionets_core.tasks.features import cmr_features
from cardionets_core.tasks.kept import Kept
from cardionets_core.training import export_tensors, load_tensors, round_statistics, train_locally

NANO = InputShape(**input_shape("nano")._asdict())
CPU = torch.device("cpu")
LOSSES = ("infonce", "weighted", "cosine", "sigmoid", "dcco")
NAMES = (
    "ecg_encoder",
    "ecg_projection",
    "cmr_encoder",
    "cmr_projection",
    "cmr_principal",
    "align_scale",
    "phenotype_head",
    "phenotype_standardiser",
)


@pytest.fixture(autouse=True)
def one_thread():
    """Bytes repeat with a fixed number of threads, and small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cohort(
    rows: int, *, site: str = "a", seed: int = 0, split: int = 0, samples: int = 750, cines: bool = True
) -> Cohort:
    """Noise; with 750 samples each ECG has one window."""
    rng = np.random.default_rng(seed)
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=rng.integers(-900, 900, rows * 12 * samples, dtype=np.int16),
        ecg_offsets=np.arange(rows) * samples,
        ecg_samples=np.full(rows, samples),
        cines=rng.integers(0, 256, (rows if cines else 0, 50, 96, 96), dtype=np.uint8),
        row_patient=np.arange(rows),
        row_split=np.full(rows, split, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.arange(rows) if cines else np.full(rows, -1),
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )


def view(cohort: Cohort, **more) -> SiteView:
    return SiteView(cohort=cohort, shape=NANO, device=CPU, **more)


def make_modules(*, solve_on: Cohort | None = None) -> dict[str, torch.nn.Module]:
    modules = {name: build_module(name, "nano", seed=1) for name in NAMES}
    if solve_on is not None:
        principal = make_task("principal", {})
        load_tensors(modules["cmr_principal"], principal.solve(principal.sums(modules, view(solve_on))))
    return modules


def load(cohort: Cohort, rows, keys=("ecg", "cine")):
    chosen = np.asarray(rows, dtype=np.int64)
    return cohort.batch(chosen, keys=frozenset(keys), shape=NANO, generator=np.random.default_rng(0))


def shared_sums(task, modules, cohort: Cohort):
    if not task.shares:
        return {}
    keys = frozenset({"ecg", "cine"})
    with torch.no_grad():
        return task.statistics(modules, [load(cohort, cohort.rows(keys, "train", NANO))])


def open_site(task, modules, cohort: Cohort):
    task.prepare_modules(modules)
    return task.open_round(modules, view(cohort, shared=shared_sums(task, modules, cohort)), task.roles[0])


def loss_of(task, modules, batch, state):
    return task.loss(modules, batch, state, generator=torch.Generator().manual_seed(0))


def embed(modules, batch, feature=None):
    """ECG and cine embeddings, the latter as the bank holds the feature."""
    with torch.no_grad():
        ecg = modules["ecg_projection"](modules["ecg_encoder"](batch.ecg_BLT))
        cine = modules["cmr_encoder"](batch.cine_BFYX).half().float() if feature is None else feature
        return ecg, modules["cmr_projection"](cine), cine


def collapse(modules) -> None:
    """All embeddings alike: all logits are equal."""
    for name in ("ecg_projection", "cmr_projection"):
        with torch.no_grad():
            modules[name].weight.zero_()
            modules[name].bias.fill_(1.0)


def snapshot(modules, names=None) -> dict[str, bytes]:
    return {
        f"{name}.{key}": value.tobytes()
        for name in (names or modules)
        for key, value in export_tensors(modules[name]).items()
    }


# -- the bank (5.2b, 8.2, 8.3) ------------------------------------------------------------------------------


def test_equal_logits_give_half_ln_n_plus_half_ln_b_with_any_cap():
    cohort, modules = make_cohort(40), make_modules()
    collapse(modules)
    for cap in (0, 12, 20):
        task = make_task("align", {"bank": cap})
        loss = loss_of(task, modules, load(cohort, range(10)), open_site(task, modules, cohort)).total
        assert loss.item() == pytest.approx((math.log(40) + math.log(10)) / 2, abs=1e-5)


@pytest.mark.parametrize("loss", ["infonce", "weighted"])
def test_a_bank_of_exactly_the_batch_is_the_loss_of_the_batch(loss):
    cohort = make_cohort(12)
    task, modules = make_task("align", {"loss": loss, "temperature": 0.2}), make_modules(solve_on=cohort)
    batch = load(cohort, range(12))
    found = loss_of(task, modules, batch, open_site(task, modules, cohort)).total
    ecg, cmr, feature = embed(modules, batch)
    if loss == "infonce":
        expected = info_nce(ecg, cmr, temperature=0.2)
    else:
        phi = modules["cmr_principal"](feature).detach()
        sigma = math.sqrt(modules["cmr_principal"].sigma_squared.item())
        weight = distance_weights(phi, phi, sigma=sigma)
        assert 0.5 < weight[0, 1] < 0.9999, "the weights must matter for this test to mean something"
        expected = weighted_info_nce(ecg, cmr, weight_BB=weight, temperature=0.2)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_far_hearts_weigh_1_and_equal_hearts_0():
    cohort, batch_rows = make_cohort(14), range(10)
    modules = make_modules(solve_on=cohort)
    plain, weighted = make_task("align", {}), make_task("align", {"loss": "weighted"})
    batch = load(cohort, batch_rows)
    with torch.no_grad():
        modules["cmr_principal"].sigma_squared.mul_(1e-3)
    found = loss_of(weighted, modules, batch, open_site(weighted, modules, cohort)).total
    expected = loss_of(plain, modules, batch, open_site(plain, modules, cohort)).total
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)

    cohort.row_cine[:] = 0
    alike = loss_of(weighted, modules, batch, open_site(weighted, modules, cohort)).total
    alike.backward()
    assert alike.item() == 0.0
    assert modules["ecg_projection"].weight.grad.abs().max() < 1e-12


def test_entries_of_the_same_patient_are_no_negatives():
    cohort, modules = make_cohort(12), make_modules()
    task = make_task("align", {"temperature": 0.2})
    cohort.row_patient[10:] = [0, 1]
    found = loss_of(task, modules, load(cohort, range(8)), open_site(task, modules, cohort)).total
    without = make_cohort(12)
    without.row_split[10:] = 2
    expected = loss_of(task, modules, load(without, range(8)), open_site(task, modules, without)).total
    apart = make_cohort(12)
    other = loss_of(task, modules, load(apart, range(8)), open_site(task, modules, apart)).total
    # Rows 0 and 1 lose their second cine; the other six rows see both.
    assert expected.item() < found.item() < other.item()
    bank = open_site(task, modules, cohort).bank
    assert bank.patient_N.tolist() == [*range(10), 0, 1]


def test_a_capped_bank_holds_the_batch_and_differs_from_step_to_step():
    cohort = make_cohort(30)
    bank = cine_bank(make_modules(), view(cohort), np.arange(30), split="train")
    generator = torch.Generator().manual_seed(4)
    own = torch.tensor([3, 7, 7, 20])
    draws = [draw_entries(bank, own, cap=12, generator=generator) for _ in range(200)]
    for drawn in draws:
        assert len(drawn) == len(drawn.unique()) == 12
        assert {3, 7, 20} <= set(drawn.tolist())
    counts = torch.bincount(torch.cat(draws), minlength=30).double()
    others = counts[[entry for entry in range(30) if entry not in (3, 7, 20)]]
    assert others.mean().item() == pytest.approx(200 * 9 / 27)
    assert others.min() > 35, "each of the others is drawn about 67 times, SD 7"
    assert draw_entries(bank, own, cap=2, generator=generator).tolist() == [3, 7, 20]
    assert draw_entries(bank, own, cap=0, generator=generator) is None
    assert draw_entries(bank, own, cap=30, generator=generator) is None


def test_the_tower_runs_once_a_cohort_and_never_in_a_step(tmp_path):
    cohort, modules = make_cohort(9), make_modules()
    task = make_task("align", {})
    calls = []
    modules["cmr_encoder"].register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        kept = Kept(tmp_path, cohort="c")
        task.prepare_modules(modules)
        state = task.open_round(modules, view(cohort, kept=kept), task.roles[0])
        assert state.bank.feature_ND.dtype == torch.float16
        loss_of(task, modules, load(cohort, range(9), keys=("ecg",)), state).total.backward()
        assert len(calls) == 1


def test_the_bank_finds_the_cine_of_each_row():
    cohort, modules = make_cohort(6), make_modules()
    cohort.row_cine[:] = [4, 4, 1, 3, 3, 0]
    cohort.row_split[5] = 1
    bank = cine_bank(modules, view(cohort), np.array([0, 1, 2, 4]), split="train")
    assert bank.entry_R.tolist() == [0, 0, 1, -1, 2, -1]
    assert bank.patient_N.tolist() == [0, 2, 4]
    rows = np.array([4, 0, 2])
    expected = cmr_features(modules["cmr_encoder"], view(cohort), rows)
    assert torch.allclose(bank.of_rows(torch.from_numpy(rows)), expected, atol=1e-3)


# -- cosine and phenotypes (5.2c, 8.20) ---------------------------------------------------------------------


def test_cosine_moves_towards_the_centred_projection_of_the_own_cine():
    cohort = make_cohort(20)
    modules, task = make_modules(solve_on=cohort), make_task("align", {"loss": "cosine"})
    assert task.decomposes and not task.shares and task.minimum_batch == 1
    assert task.trains == ("ecg_encoder", "ecg_projection")
    assert task.reads == ("cmr_encoder", "cmr_principal")
    batch = load(cohort, range(9))
    found = loss_of(task, modules, batch, open_site(task, modules, cohort))
    ecg, _, feature = embed(modules, batch)
    principal = modules["cmr_principal"]
    target = (feature - principal.mean) @ principal.components.T
    expected = 1.0 - cosine_similarity(ecg, target.detach())
    assert torch.allclose(found.per_sample_B.detach(), expected, atol=1e-6)
    assert found.per_sample_B.mean().item() == pytest.approx(found.total.item(), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_row_s_cosine_loss_does_not_depend_on_the_others(weight):
    cohort = make_cohort(12)
    cohort.phenotypes[:, 5:] = np.nan
    modules = make_modules(solve_on=cohort)
    task = make_task("align", {"loss": "cosine", "phenotype_weight": weight})
    state = open_site(task, modules, cohort)
    together = loss_of(task, modules, load(cohort, range(12)), state)
    alone = [loss_of(task, modules, load(cohort, [row]), state).total.item() for row in range(12)]
    assert together.per_sample_B.tolist() == pytest.approx(alone, abs=1e-6)
    assert together.total.item() == pytest.approx(np.mean(alone), abs=1e-6)


def test_phenotypes_that_are_missing_teach_nothing():
    cohort = make_cohort(10)
    cohort.phenotypes[:, 3] = np.nan
    cohort.phenotypes[2:] = np.nan
    modules = make_modules(solve_on=cohort)
    with torch.no_grad():
        modules["phenotype_standardiser"].mean.fill_(0.5)
        modules["phenotype_standardiser"].deviation.fill_(2.0)
    task = make_task("align", {"loss": "cosine", "phenotype_weight": 0.7})
    plain = make_task("align", {"loss": "cosine"})
    assert task.trains == ("ecg_encoder", "ecg_projection", "phenotype_head")
    assert task.reads == ("cmr_encoder", "cmr_principal", "phenotype_standardiser")
    # The batch holds no phenotypes: rows without any stay in the loss.
    batch = load(cohort, range(10))
    without = loss_of(plain, modules, batch, open_site(plain, modules, cohort)).per_sample_B
    found = loss_of(task, modules, batch, open_site(task, modules, cohort))
    assert torch.equal(found.per_sample_B[2:], without[2:])
    with torch.no_grad():
        predicted = modules["phenotype_head"](modules["ecg_encoder"](batch.ecg_BLT))[0]
    known = [column for column in range(82) if column != 3]
    target = torch.from_numpy((cohort.phenotypes[0, known] - 0.5) / 2.0)
    extra = 0.7 * smooth_l1_loss(predicted[known], target)
    assert found.per_sample_B[0].item() == pytest.approx((without[0] + extra).item(), abs=1e-6)

    found.total.backward()
    gradient = modules["phenotype_head"][-1].weight.grad
    assert not gradient[3].any()
    assert gradient[known].any(dim=1).all()
    assert all(torch.isfinite(p.grad).all() for p in modules["ecg_encoder"].parameters())


@pytest.mark.parametrize("loss", ["cosine", "weighted"])
def test_components_that_were_never_solved_are_refused(loss):
    cohort, modules = make_cohort(9), make_modules()
    task = make_task("align", {"loss": loss})
    with pytest.raises(OrderRefusedError, match="never solved"):
        open_site(task, modules, cohort)
    solved = make_modules(solve_on=cohort)
    with torch.no_grad():
        solved["cmr_principal"].sigma_squared.zero_()
    with pytest.raises(OrderRefusedError, match="do not vary"):
        open_site(task, solved, cohort)


# -- what moves and what does not (8.11) --------------------------------------------------------------------


def make_phase(**changes) -> Phase:
    settings = {
        "task": "align",
        "rounds": 1,
        "local_steps": 2,
        "batch_size": 8,
        "optimiser": Optimiser(name="adamw", lr=1e-3),
    }
    return Phase(**{**settings, **changes})


def run(task, modules, cohort, *, role=None, shared=None, phase=None):
    site = view(cohort, shared=shared or {})
    return train_locally(task, modules, site, phase=phase or make_phase(), round_index=1, seed=3, role=role)


@pytest.mark.parametrize("loss", LOSSES)
def test_frozen_modules_keep_their_bytes_and_the_others_move(loss):
    cohort, held = make_cohort(17), make_cohort(9, site="held", seed=7, split=2)
    modules, task = make_modules(solve_on=cohort), make_task("align", {"loss": loss})
    before = snapshot(modules)
    result = run(task, modules, cohort, shared=shared_sums(task, modules, cohort))
    assert result.steps == 2 and loss in result.parts
    after = snapshot(modules)
    moved = {name.partition(".")[0] for name in before if before[name] != after[name]}
    assert moved == set(task.trains)
    for name in task.reads:
        assert not modules[name].training
        assert all(p.grad is None and not p.requires_grad for p in modules[name].parameters())

    first = task.metric_sums(modules, view(held), split="test", seed=0)
    second = task.metric_sums(modules, view(held), split="test", seed=0)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert snapshot(modules) == after


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_every_trained_parameter_also_in_bf16(loss):
    cohort = make_cohort(12)
    modules, task = make_modules(solve_on=cohort), make_task("align", {"loss": loss})
    task.prepare_modules(modules)
    # As at a site: what is shared over the sites is taken in fp32, the round and its steps under autocast.
    site = view(cohort, shared=shared_sums(task, modules, cohort))
    batch = load(cohort, range(9))
    losses, gradients = [], []
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found = loss_of(task, modules, batch, task.open_round(modules, site, task.roles[0])).total
        assert found.dtype == torch.float32
        found.backward()
        for name in task.trains:
            for key, parameter in modules[name].named_parameters():
                assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), f"{name}.{key}"
        losses.append(found.item())
        flat = [p.grad.flatten() for name in task.trains for p in modules[name].parameters()]
        gradients.append(torch.cat(flat).clone())
        for name in task.trains:
            modules[name].zero_grad()
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert cosine_similarity(*gradients, dim=0) > 0.9


# -- sites without cines (5.3) ------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_a_site_without_cines_moves_the_encoder_and_nothing_else(loss):
    task, modules = make_task("align", {"loss": loss}), make_modules()
    paired, ecg_only = task.roles
    assert (paired.name, paired.needs, paired.weight) == ("paired", frozenset({"ecg", "cine"}), 1.0)
    assert (ecg_only.name, ecg_only.trains, ecg_only.weight) == ("ecg-only", ("ecg_encoder",), 0.25)
    # Recordings longer than a window: the random window differs from the mean of the three.
    cohort = make_cohort(16, samples=1000, cines=False)
    before = snapshot(modules)
    result = run(task, modules, cohort, role=ecg_only)
    after = snapshot(modules)
    assert (result.samples, set(result.parts)) == (16, {"distil"})
    assert {name.partition(".")[0] for name in before if before[name] != after[name]} == {"ecg_encoder"}


def test_gradients_stop_before_the_projections_of_a_site_without_cines():
    task, modules, cohort = make_task("align", {}), make_modules(), make_cohort(8, samples=1000, cines=False)
    role = task.roles[1]
    task.prepare_modules(modules, role)
    state = task.open_round(modules, view(cohort), role)
    assert modules["ecg_encoder"].training
    batch = load(cohort, range(8), keys=("ecg",))
    found = loss_of(task, modules, batch, state)
    found.total.backward()
    assert all(parameter.grad is not None for parameter in modules["ecg_encoder"].parameters())
    for name in ("ecg_projection", "cmr_projection"):
        assert all(p.grad is None and not p.requires_grad for p in modules[name].parameters())
    assert found.per_sample_B.mean().item() == pytest.approx(found.total.item())

    with torch.no_grad():
        windows = [
            cohort.batch(np.arange(8), keys=frozenset({"ecg"}), shape=NANO, window=index).ecg_BLT
            for index in range(3)
        ]
        incoming = make_modules()
        means = sum(incoming["ecg_projection"](incoming["ecg_encoder"](each)) for each in windows) / 3
        local = incoming["ecg_projection"](incoming["ecg_encoder"](batch.ecg_BLT))
    assert torch.allclose(found.per_sample_B.detach(), 1.0 - cosine_similarity(local, means), atol=1e-6)


def test_the_target_is_the_incoming_model_s_for_the_whole_round():
    task, modules, cohort = make_task("align", {}), make_modules(), make_cohort(8, cines=False)
    role = task.roles[1]
    task.prepare_modules(modules, role)
    state = task.open_round(modules, view(cohort), role)
    batch = load(cohort, range(8), keys=("ecg",))
    # One window a recording: the incoming model is at its own target.
    assert loss_of(task, modules, batch, state).total.item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for parameter in modules["ecg_encoder"].parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert loss_of(task, modules, batch, state).total.item() > 1e-3


def test_rows_are_found_by_their_number():
    cohort = make_cohort(9, cines=False)
    cohort.row_split[[1, 4]] = 2
    task, modules = make_task("align", {}), make_modules()
    role = task.roles[1]
    task.prepare_modules(modules, role)
    state = task.open_round(modules, view(cohort), role)
    assert state.place_R.tolist() == [0, -1, 1, 2, -1, 3, 4, 5, 6]
    batch = load(cohort, [8, 2, 5], keys=("ecg",))
    assert loss_of(task, modules, batch, state).total.item() == pytest.approx(0.0, abs=1e-6)


def test_sites_without_cines_can_be_left_out():
    assert [role.name for role in make_task("align", {"ecg_only": "off"}).roles] == ["paired"]
    assert make_task("align", {"ecg_only_weight": 1.0}).roles[1].weight == 1.0


# -- one step of many sites (8.7) ---------------------------------------------------------------------------


def one_step(loss: str, *, lr: float, ecg_only: bool = False) -> tuple[float, float]:
    """Largest difference of federated and pooled weights after one full-batch step, and largest move."""
    sites = {"a": make_cohort(9, site="a"), "b": make_cohort(15, site="b", seed=1)}
    pooled = concatenate(list(sites.values()), site="all")
    task = make_task("align", {"loss": loss, "temperature": 0.2})
    start = make_modules(solve_on=pooled)
    sgd = Optimiser(name="sgd", lr=lr, weight_decay=0.0)
    phase = make_phase(local_steps=1, batch_size=64, optimiser=sgd)

    def fresh() -> dict[str, torch.nn.Module]:
        modules = make_modules()
        for name in modules:
            load_tensors(modules[name], export_tensors(start[name]))
        return modules

    def statistics(cohort: Cohort, role=task.roles[0]):
        return round_statistics(task, fresh(), view(cohort), phase=phase, round_index=1, seed=3, role=role)

    shared = together = None
    if task.shares:
        sums = {site: statistics(cohort) for site, cohort in sites.items()}
        if ecg_only:
            sums["c"] = statistics(make_cohort(10, seed=2, cines=False), task.roles[1])
            assert not any(value.any() for value in sums["c"].values())
        shared, together = add_sums(sums), statistics(pooled)
        assert shared.keys() == together.keys()
        assert all(np.allclose(shared[name], together[name], rtol=1e-5, atol=1e-4) for name in shared)
    ends = []
    for site, cohort in sites.items():
        modules = fresh()
        result = run(task, modules, cohort, shared=shared, phase=phase)
        assert (result.samples, result.steps) == ({"a": 9, "b": 15}[site], 1)
        ends.append({name: export_tensors(modules[name]) for name in task.trains})
    reference = fresh()
    assert run(task, reference, pooled, shared=together, phase=phase).samples == 24
    difference = move = 0.0
    for name in task.trains:
        for key, value in export_tensors(reference[name]).items():
            first, second = (end[name][key].astype(np.float64) for end in ends)
            difference = max(difference, float(np.abs((9 * first + 15 * second) / 24 - value).max()))
            move = max(move, float(np.abs(value - export_tensors(start[name])[key]).max()))
    return difference, move


@pytest.mark.parametrize(
    ("loss", "lr", "ecg_only"), [("cosine", 1.0, False), ("dcco", 0.05, False), ("dcco", 0.05, True)]
)
def test_one_step_of_many_sites_is_the_pooled_step(loss, lr, ecg_only):
    difference, move = one_step(loss, lr=lr, ecg_only=ecg_only)
    assert difference < 1e-6
    assert move > 1e-3


@pytest.mark.parametrize("loss", ["infonce", "weighted", "sigmoid"])
def test_one_step_of_coupled_losses_is_not(loss):
    difference, _ = one_step(loss, lr=1.0)
    assert difference > 1e-4


def test_cross_correlation_without_the_round_s_statistics_is_refused():
    cohort, modules = make_cohort(9), make_modules()
    task = make_task("align", {"loss": "dcco"})
    task.prepare_modules(modules)
    with pytest.raises(OrderRefusedError, match="statistics are absent"):
        task.open_round(modules, view(cohort), task.roles[0])


def test_only_the_cross_correlation_shares():
    assert [loss for loss in LOSSES if make_task("align", {"loss": loss}).shares] == ["dcco"]
    assert [loss for loss in LOSSES if make_task("align", {"loss": loss}).batch_keys is None] == ["dcco"]
    modules = {"ecg_projection": make_modules()["ecg_projection"]}
    assert make_task("align", {}).statistics(modules, ()) == {}
    assert make_task("align", {"loss": "dcco"}).statistics(modules, ())["Sfg"].shape == (32, 32)


# -- metrics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_nobody_gives_zeros_of_the_same_shapes_without_running_a_module(loss):
    task, cohort = make_task("align", {"loss": loss}), make_cohort(9, split=2)
    modules = make_modules(solve_on=replace(cohort, row_split=np.zeros(9, dtype=np.int8)))
    some = task.metric_sums(modules, view(cohort), split="test", seed=0)
    for name in ("ecg_encoder", "cmr_encoder"):
        modules[name] = build_module(name, "nano", seed=0, device="meta")
    nobody = task.metric_sums(modules, view(empty_cohort(site="nobody", phenotypes=82)), split="test", seed=0)
    assert {name: value.shape for name, value in nobody.items()} == {
        name: value.shape for name, value in some.items()
    }
    assert not any(value.any() for value in nobody.values())
    assert task.primary not in task.metrics(nobody)
    found = task.metrics(some)
    assert task.primary in found
    assert all(math.isfinite(value) for value in found.values())


def test_loss_and_cosine_of_the_held_out_pairs():
    cohort = make_cohort(11, split=1)
    modules, batch = make_modules(), load(cohort, range(11))
    found = make_task("align", {}).metrics(
        make_task("align", {}).metric_sums(modules, view(cohort), split="validation", seed=0)
    )
    ecg, cmr, _ = embed(modules, batch)
    assert found["loss"] == pytest.approx(info_nce(ecg, cmr, temperature=0.05).item(), rel=1e-4)
    assert found["cosine"] == pytest.approx(cosine_similarity(ecg, cmr).mean().item(), abs=1e-5)
    assert found["gallery"] == found["full/gallery"] == found["n_rows"] == 11.0


def test_the_gallery_of_256_and_the_whole_one_both_ways():
    rng = np.random.default_rng(0)
    ecg = rng.normal(size=(300, 8))
    cmr = ecg + 0.8 * rng.normal(size=(300, 8))
    sums = alignment_sums(ecg, cmr, patient_R=np.arange(300), seed=0, loss=2.5)
    found = alignment_metrics({**sums, "n_rows": np.array([300.0]), "n_patients": np.array([300.0])})
    assert (found["gallery"], found["cmr_to_ecg/gallery"]) == (256.0, 256.0)
    assert (found["full/gallery"], found["cmr_to_ecg/full/gallery"]) == (300.0, 300.0)
    assert found["loss"] == 2.5
    cosine = cosine_similarity(torch.from_numpy(ecg)[:, None], torch.from_numpy(cmr)[None], dim=2).numpy()
    for prefix, score in (("full/", cosine), ("cmr_to_ecg/full/", cosine.T)):
        rank = (score >= np.diagonal(score)[:, None]).sum(axis=1)
        assert found[f"{prefix}recall@5"] == pytest.approx((rank <= 5).mean())
        assert found[f"{prefix}median_rank"] == np.sort(rank)[149]
    assert found["cosine"] == pytest.approx(np.diagonal(cosine).mean())


def test_the_cosine_loss_is_measured_against_its_own_target():
    cohort = make_cohort(14, split=1)
    modules = make_modules(solve_on=replace(cohort, row_split=np.zeros(14, dtype=np.int8)))
    task = make_task("align", {"loss": "cosine"})
    found = task.metrics(task.metric_sums(modules, view(cohort), split="validation", seed=0))
    assert found["loss"] == pytest.approx(1.0 - found["cosine"], abs=1e-6)


def test_the_cross_correlation_of_held_out_patients_is_that_of_all_sites_together():
    sites = {"a": make_cohort(12, site="a", split=2), "b": make_cohort(20, site="b", seed=1, split=2)}
    modules, task = make_modules(), make_task("align", {"loss": "dcco", "lam": 0.02})
    sums = {
        site: task.metric_sums(modules, view(cohort), split="test", seed=0) for site, cohort in sites.items()
    }
    pairs = [embed(modules, load(cohort, range(len(cohort.row_ecg))))[:2] for cohort in sites.values()]
    ecg, cmr = (torch.cat(side) for side in zip(*pairs, strict=True))
    expected = dcco_loss(batch_moments(ecg, cmr), off_diagonal=0.02).item()
    assert task.metrics(add_sums(sums))["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "triplet"}, "infonce, weighted, cosine, sigmoid, dcco"),
        ({"ecg_only": "mae"}, "distil, off"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"lam": -1.0}, "lam is 0 or more"),
        ({"bank": 4}, "at least 8"),
        ({"bank": 64, "loss": "dcco"}, "infonce and weighted"),
        ({"phenotype_weight": 0.1}, "loss cosine"),
        ({"phenotype_weight": -0.1, "loss": "cosine"}, "phenotype_weight is 0 or more"),
        ({"ecg_only_weight": 0.0}, "above 0"),
        ({"bank": 2.5}, "wrong type"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(ConfigError) as caught:
        make_task("align", options)
    assert said in str(caught.value)
