"""Private steps: limits in which they are plain ones, the sample, the noise, what a coupled loss does."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cardionets_core.config.study import Phase, Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError
from cardionets_core.losses.contrastive import info_nce
from cardionets_core.losses.cosine import cosine_distillation
from cardionets_core.models import build_module, input_shape
from cardionets_core.privacy.noise import SecretRandomness, public_key_of
from cardionets_core.privacy.per_sample import ClippedSums
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.training import train_locally
from cardionets_core.training.private import PrivateSteps, check_decomposes, poisson_steps, sample_rate
from cardionets_core.training.private_plan import SUMS_SCALE, check_private
from cardionets_core.training.private_sums import private_sums
from cardionets_core.training.tensors import export_tensors

NANO = InputShape(**input_shape("nano")._asdict())


def make_site(rows: int, *, patients: int | None = None, seed: int = 0) -> SiteView:
    rng = np.random.default_rng(seed)
    cohort = Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, rows * 12 * 1000).astype(np.int16),
        ecg_offsets=np.arange(rows) * 1000,
        ecg_samples=np.full(rows, 1000),
        cines=rng.integers(0, 256, (1, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows) % (patients or rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.full(rows, -1),
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=rng.integers(0, 2, (rows, 8)).astype(np.float32),
    )
    return SiteView(cohort=cohort, shape=NANO, device=torch.device("cpu"))


def make_phase(**changes) -> Phase:
    content = {"task": "phenotype", "rounds": 1, "local_steps": 1, "batch_size": 64}
    optimiser = {"name": "sgd", "lr": 0.1, "schedule": "constant", "weight_decay": 0.0}
    return Phase.model_validate({**content, "optimiser": optimiser, **changes})


def trained(
    site: SiteView, phase: Phase, private: PrivateSteps | None
) -> tuple[dict[str, np.ndarray], object]:
    task = make_task("phenotype", {"windows": "mean", "bootstrap_replicates": 1})
    modules = {name: build_module(name, "nano", seed=1) for name in (*task.trains, *task.reads)}
    result = train_locally(task, modules, site, phase=phase, round_index=1, seed=3, private=private)
    return export_tensors(modules["phenotype_head"]), result


def quiet(**changes) -> PrivateSteps:
    content = {"noise_multiplier": 0.0, "clip_norm": 1e9, "randomness": SecretRandomness(public_key_of(1))}
    return PrivateSteps(**{**content, **changes})


@pytest.mark.parametrize("mode", ["layers", "loop"])
@pytest.mark.parametrize("steps", [1, 3])
def test_without_noise_and_clip_and_with_everybody_it_is_plain_training(mode, steps):
    site, phase = make_site(12), make_phase(local_steps=steps)
    plain, _ = trained(site, phase, None)
    private, _ = trained(site, phase, quiet(mode=mode))
    for name, value in plain.items():
        assert np.allclose(private[name], value, atol=2e-7), name


def test_who_was_drawn_is_not_told():
    _, result = trained(make_site(20, patients=10), make_phase(batch_size=2), quiet())
    assert (result.samples, result.patients) == (10, 10)


def test_parts_that_pass_one_after_the_other_make_the_same_step():
    site = make_site(12)
    whole, _ = trained(site, make_phase(), quiet(clip_norm=0.05))
    parts, _ = trained(site, make_phase(accumulate=5), quiet(clip_norm=0.05))
    assert all(np.allclose(parts[name], value, atol=1e-7) for name, value in whole.items())


def test_the_noise_of_a_step_has_the_deviation_that_is_accounted_for():
    site, phase = make_site(40), make_phase(batch_size=8, optimiser={**SGD, "lr": 1.0})
    still, _ = trained(site, phase, quiet(clip_norm=1e-6))
    noisy, _ = trained(site, phase, quiet(clip_norm=1e-6, noise_multiplier=3.0))
    change = np.concatenate([(noisy[name] - still[name]).ravel() for name in still])
    # sigma * C over the expected number of patients; weights are near 1, so float32 rounds at 1e-7.
    assert change.std() == pytest.approx(3.0 * 1e-6 / 8, rel=0.05)


SGD = {"name": "sgd", "schedule": "constant", "weight_decay": 0.0}


def test_each_patient_is_drawn_by_a_coin_of_its_own_with_one_recording():
    # Patients have 1 to 4 recordings.
    owner = np.repeat(np.arange(30), 1 + np.arange(30) % 4)
    site = make_site(len(owner))
    site = replace(site, cohort=replace(site.cohort, row_patient=owner))
    task, phase = make_task("ecg_mae", {}), make_phase(task="ecg_mae", batch_size=6)
    assert sample_rate(phase, patients=30) == 0.2
    steps = poisson_steps(
        task, site, role=task.roles[0], phase=phase, randomness=SecretRandomness(public_key_of(2))
    )
    sizes, seen, rows = [], np.zeros(30), np.zeros(len(owner))
    for _ in range(600):
        step = next(steps)
        drawn = owner[step.rows]
        assert len(np.unique(drawn)) == len(drawn) == step.batch.size
        sizes.append(len(drawn))
        seen[drawn] += 1
        rows[step.rows] += 1
    # A binomial of 30 and .2: mean 6, variance 4.8.
    assert np.mean(sizes) == pytest.approx(6.0, abs=0.4) and np.var(sizes) == pytest.approx(4.8, rel=0.25)
    assert np.abs(seen / 600 - 0.2).max() < 0.07
    of_four = rows[owner == 3]
    assert len(of_four) == 4 and of_four.min() > 0.1 * of_four.sum()


def nobody(key: bytes) -> bool:
    """Whether the first step of twelve patients at a rate of 1/12 draws nobody."""
    stream = SecretRandomness(key)
    stream.generator()
    return not (stream.uniform(12) < 1 / 12).any()


def test_an_empty_sample_is_a_step_of_noise():
    site, phase = make_site(12), make_phase(batch_size=1)
    key = next(filter(nobody, map(public_key_of, range(100))))
    before = export_tensors(build_module("phenotype_head", "nano", seed=1))
    still, _ = trained(site, phase, quiet(randomness=SecretRandomness(key)))
    noisy, _ = trained(
        site, phase, quiet(randomness=SecretRandomness(key), noise_multiplier=1.0, clip_norm=1.0)
    )
    assert all(np.array_equal(still[name], value) for name, value in before.items())
    assert not any(np.array_equal(noisy[name], value) for name, value in before.items())


def rows_of(batch: int, layer: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """People with much the same ECG, and a last one whose cine is a hard negative for all of them."""
    generator = torch.Generator().manual_seed(batch)
    common = torch.randn(24, generator=generator)
    ecg = common + 0.05 * torch.randn(batch, 24, generator=generator)
    cine = torch.randn(batch, 16, generator=generator)
    with torch.no_grad():
        direction = nn.functional.normalize(layer(common), dim=0)
    aside = torch.randn(16, generator=generator)
    aside = nn.functional.normalize(aside - (aside @ direction) * direction, dim=0)
    cine[-1] = direction + aside
    return ecg, cine


@pytest.mark.parametrize(("batch", "times"), [(8, 2.0), (32, 10.0), (128, 40.0)])
def test_clipping_rows_of_a_coupled_loss_bounds_nothing_and_of_ours_all(batch, times):
    """The sum with one patient more, under InfoNCE and under the loss that is allowed instead."""
    layer = nn.Linear(24, 16, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0))
    ecg, cine = rows_of(batch, layer)
    clip = 1e-3

    def coupled(count: int) -> torch.Tensor:
        return info_nce_of_each(layer(ecg[:count]), cine[:count])

    def apart(count: int) -> torch.Tensor:
        return cosine_distillation(layer(ecg[:count]), cine[:count])

    def moved(losses) -> float:
        """Over the clip: how far the sum of clipped gradients moves when the last patient goes."""
        totals = []
        for count in (batch, batch - 1):
            summed = ClippedSums({"layer": layer}, clip_norm=clip, first_rows=batch)
            summed.add(lambda begin, end, count=count: losses(count), rows=count)
            totals.append(summed.take()[0])
        return float((totals[0] - totals[1]).norm()) / clip

    assert moved(coupled) > times
    assert moved(apart) <= 1.0 + 1e-5


def info_nce_of_each(ecg_BE: torch.Tensor, cine_BE: torch.Tensor) -> torch.Tensor:
    """The softmax loss of each row over the batch, whose mean our loss gives."""
    ecg, cine = (nn.functional.normalize(value, dim=1) for value in (ecg_BE, cine_BE))
    logits = ecg @ cine.T / 0.05
    target = torch.arange(len(logits))
    both = [nn.functional.cross_entropy(each, target, reduction="none") for each in (logits, logits.T)]
    each_B = 0.5 * (both[0] + both[1])
    assert torch.allclose(each_B.mean(), info_nce(ecg_BE, cine_BE, temperature=0.05).mean(), rtol=1e-4)
    return each_B


@pytest.mark.parametrize(
    ("name", "options", "remedy"),
    [
        ("align", {"loss": "infonce"}, "cosine"),
        ("align", {"loss": "weighted"}, "cosine"),
        ("align", {"loss": "sigmoid"}, "cosine"),
        ("align", {"loss": "dcco"}, "cosine"),
        ("tokenizer", {"adversarial": True}, "adversarial: false"),
    ],
)
def test_coupled_losses_are_refused_by_name_with_what_is_allowed(name, options, remedy):
    task = make_task(name, options)
    with pytest.raises(ConfigError) as caught:
        check_decomposes(task)
    assert name in caught.value.what and remedy in (caught.value.remedy or "")
    check_decomposes(make_task("align", {"loss": "cosine"}))


@pytest.mark.parametrize(
    ("phases", "strategy", "said"),
    [
        ([("align", {"loss": "infonce"})], "fedavg", "align"),
        ([("probe", {})], "fedavg", "probe"),
        ([("standardise", {})], "fedavg", "standardise"),
        ([("principal", {})], "fedavg", "principal"),
        ([("logistic", {})], "fedavg", "logistic"),
        ([("calibrate", {})], "fedavg", "calibrate"),
        ([("memorisation", {})], "fedavg", "memorisation"),
        ([("ecg_mae", {})], "qfedavg", "qfedavg"),
        ([("ecg_mae", {})], "ditto", "ditto"),
    ],
)
def test_what_cannot_be_private_is_refused_by_name(phases, strategy, said):
    step = {"local_steps": 1, "optimiser": {"lr": 1e-3}}
    study = Study.model_validate(
        {
            "name": "x",
            "phases": [{"task": n, "rounds": 1, "options": o, **(step if n in ("align", "ecg_mae") else {})}
                       for n, o in phases],
            "aggregation": {"strategy": strategy},
            "privacy": {"mechanism": "dp_sgd", "epsilon": 1.0},
        }
    )  # fmt: skip
    tasks = [make_task(name, options) for name, options in phases]
    with pytest.raises(ConfigError) as caught:
        check_private(study, tasks)
    assert said in str(caught.value) and caught.value.remedy
    check_private(study.model_copy(update={"privacy": type(study.privacy)()}), tasks)


def test_sums_without_noise_are_the_task_s_own_where_nobody_is_clipped():
    site, task = make_site(25), make_task("prevalence", {})
    found = private_sums(task, {}, site, noise_multiplier=0.0, randomness=SecretRandomness(public_key_of(3)))
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in task.sums({}, site).items()
    }


def test_a_patient_of_many_recordings_moves_sums_by_no_more_than_the_bounds():
    owner = np.array([*range(10), *[10] * 15])
    site, task = make_site(25), make_task("prevalence", {})
    site = replace(site, cohort=replace(site.cohort, row_patient=owner))
    less = replace(site, cohort=replace(site.cohort, row_split=np.where(owner == 10, 2, 0).astype(np.int8)))
    make = functools.partial(private_sums, task, {}, noise_multiplier=0.0)
    with_all = make(site, randomness=SecretRandomness(public_key_of(3)))
    without = make(less, randomness=SecretRandomness(public_key_of(3)))
    for name, bound in task.private_bounds.items():
        assert 0.0 < np.linalg.norm(with_all[name] - without[name]) <= bound * (1 + 1e-12)


def test_the_noise_of_sums_is_that_of_their_bounds_and_the_result_is_possible():
    site, task = make_site(25), make_task("prevalence", {})
    exact = task.sums({}, site)
    found = [
        private_sums(task, {}, site, noise_multiplier=SUMS_SCALE, randomness=SecretRandomness())
        for _ in range(40)
    ]
    for sums in found:
        assert (sums["known"] >= 0).all() and (sums["positive"] >= 0).all()
        assert (sums["positive"] <= sums["known"]).all() and (sums["subtypes"] >= 0).all()
        assert task.solve(sums)
    # Counts far from 0 are not repaired: their deviation is the mechanism's.
    spread = np.concatenate([sums["known"] - exact["known"] for sums in found])
    deviation = SUMS_SCALE * task.private_bounds["known"] * 3**0.5
    assert 0.4 * deviation < spread.std() < 1.1 * deviation
