"""The tokenizer's phase: a loss of single cines, an adversary that stays, sums against naive ones."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cardionets_core.data.cohort import Cohort, empty_cohort
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation import add_sums, case_psnr, case_ssim
from cardionets_core.models import build_module
from cardionets_core.models.cmr_tokenizer import CmrTokenizer
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of

NANO = shape_of("nano")
CPU = torch.device("cpu")


def make_tokenizer(seed: int = 0) -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = CmrTokenizer(
            channels=4, multipliers=(1, 1, 1), blocks=1, latent=4, groups=2, heads=1, time_halvings=1
        )
    return {"cmr_tokenizer": tokenizer}


def make_view(cines: int, *, site: str = "a", seed: int = 0, split: int = 0) -> SiteView:
    """Cines of noise of a brightness of their own, each a person's."""
    rng = np.random.default_rng(seed)
    level = rng.integers(20, 200, (cines, 1, 1, 1))
    none = np.zeros(0, dtype=np.int64)
    cohort = Cohort(
        site=site,
        digest=site,
        ecg_counts=none.astype(np.int16),
        ecg_offsets=none,
        ecg_samples=none,
        cines=(level + rng.integers(0, 50, (cines, 50, 96, 96))).astype(np.uint8),
        row_patient=np.arange(cines),
        row_split=np.full(cines, split, dtype=np.int8),
        row_ecg=np.full(cines, -1),
        row_cine=np.arange(cines),
        phenotypes=np.full((cines, 82), np.nan, dtype=np.float32),
        diseases=np.full((cines, 8), np.nan, dtype=np.float32),
    )
    return SiteView(cohort=cohort, shape=NANO, device=CPU)


def open_and_load(task, modules, site):
    task.prepare_modules(modules)
    state = task.open_round(modules, site, task.roles[0])
    rows = site.rows(task.needs, "train")
    return state, site.cohort.batch(rows, keys=task.needs, shape=NANO)


def loss_of(task, modules, batch, state, seed=0):
    return task.loss(modules, batch, state, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_of_the_cines_own():
    task, modules = make_task("tokenizer", {}), make_tokenizer()
    assert task.decomposes
    state, batch = open_and_load(task, modules, make_view(4))
    found = loss_of(task, modules, batch, state)
    assert found.per_sample_B.shape == (4,)
    assert torch.allclose(found.per_sample_B.mean(), found.total)
    assert float(found.total.detach()) == pytest.approx(
        found.parts["l1"] + 1e-6 * found.parts["kl"] + found.parts["peaks"], rel=1e-5
    )
    changed = batch.cine_BFYX.clone()
    changed[0] = -changed[0]
    object.__setattr__(batch, "cine_BFYX", changed)
    other = loss_of(task, modules, batch, state)
    assert torch.allclose(other.per_sample_B[1:], found.per_sample_B[1:], rtol=1e-5)
    assert other.per_sample_B[0] != found.per_sample_B[0]


def test_steps_lower_the_loss():
    task, modules = make_task("tokenizer", {}), make_tokenizer()
    state, batch = open_and_load(task, modules, make_view(1))
    optimiser = torch.optim.Adam(modules["cmr_tokenizer"].parameters(), lr=1e-2, betas=(0.5, 0.9))
    values = []
    for _ in range(8):
        optimiser.zero_grad()
        found = loss_of(task, modules, batch, state)
        found.total.backward()
        optimiser.step()
        values.append(found.parts["l1"])
    assert values[-1] < 0.8 * values[0]


def test_an_adversary_couples_the_batch_learns_on_the_site_and_waits_its_turn():
    task = make_task("tokenizer", {"adversarial": True, "discriminator_alone": 1, "discriminator_rate": 1e-3})
    assert not task.decomposes
    assert task.trains == ("cmr_tokenizer",)
    assert "tokenizer_discriminator" not in task.reads
    modules = make_tokenizer()
    adversary, batch = open_and_load(task, modules, make_view(2))
    plain = loss_of(make_task("tokenizer", {}), modules, batch, None)
    before = [p.clone() for p in adversary.discriminator.parameters()]
    first = loss_of(task, modules, batch, adversary)
    assert first.per_sample_B is None
    assert torch.equal(first.total, plain.total)
    assert "adversarial" not in first.parts
    assert any(
        not torch.equal(a, b) for a, b in zip(before, adversary.discriminator.parameters(), strict=True)
    )
    second = loss_of(task, modules, batch, adversary)
    assert float((second.total - plain.total).detach()) == pytest.approx(
        0.05 * second.parts["adversarial"], abs=1e-6
    )
    second.total.backward()
    assert all(p.grad is not None for p in modules["cmr_tokenizer"].parameters())


def test_the_adversary_begins_every_round_from_the_same_weights():
    task = make_task("tokenizer", {"adversarial": True})
    first, second = (
        task.open_round({}, make_view(1), task.roles[0]).discriminator.state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any("running" in name for name in first)


def test_sums_against_naive_ones():
    task, modules, site = make_task("tokenizer", {}), make_tokenizer(), make_view(9, split=2)
    sums = task.metric_sums(modules, site, split="test", seed=3)
    found = task.metrics(sums)
    cine = site.cohort.batch(np.arange(9), keys=task.needs, shape=NANO).cine_BFYX
    tokenizer = modules["cmr_tokenizer"]
    with torch.no_grad():
        posterior = tokenizer.encode(cine)
        generator = torch.Generator().manual_seed(3)
        # The noise is drawn batch by batch.
        noise = torch.cat([torch.randn(size, 4, 4, 8, 8, generator=generator) for size in (8, 1)])
        made = tokenizer.decode(tokenizer.draw(posterior, noise_BZTHW=noise))
    mean, deviation = posterior.mean_BZTHW, (0.5 * posterior.log_variance_BZTHW).exp()
    kl = kl_divergence(Normal(mean, deviation), Normal(torch.zeros(()), torch.ones(())))
    assert found["ssim"] == pytest.approx(float(case_ssim(made, cine).mean()), abs=1e-6)
    assert found["psnr"] == pytest.approx(float(case_psnr(made, cine).mean()), rel=1e-5)
    assert found["l1"] == pytest.approx(float((made - cine).abs().mean()), rel=1e-5)
    assert found["kl_per_dimension"] == pytest.approx(float(kl.mean()), rel=1e-4)
    draws = mean + deviation * torch.randn(400, *mean.shape, generator=generator)
    assert found["latent_mean"] == pytest.approx(float(mean.mean()), abs=1e-5)
    assert found["latent_sd"] == pytest.approx(float(draws.std()), rel=1e-2)
    assert found["n_patients"] == 9


def test_sums_of_sites_add_and_nobody_adds_nothing():
    task, modules = make_task("tokenizer", {}), make_tokenizer()
    measure = partial(task.metric_sums, modules, split="test", seed=0)
    by_site = {
        name: measure(make_view(2, site=name, seed=seed, split=2)) for name, seed in (("a", 0), ("b", 1))
    }
    pooled = task.metrics(add_sums(by_site))
    alone = [task.metrics(sums) for sums in by_site.values()]
    assert pooled["ssim"] == pytest.approx(np.mean([each["ssim"] for each in alone]))
    nobody = SiteView(cohort=empty_cohort(site="", phenotypes=82), shape=NANO, device=CPU)
    meta = {"cmr_tokenizer": build_module("cmr_tokenizer", "nano", seed=0, device="meta")}
    zero = task.metric_sums(meta, nobody, split="test", seed=0)
    assert {name: value.shape for name, value in zero.items()} == {
        name: value.shape for name, value in by_site["a"].items()
    }
    assert not any(value.any() for value in zero.values())
    assert task.metrics(zero) == {"n_rows": 0.0, "n_patients": 0.0}


def test_an_option_below_zero_is_refused():
    with pytest.raises(ConfigError, match="below 0"):
        make_task("tokenizer", {"kl_weight": -1e-6})
