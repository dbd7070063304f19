"""The generator's phase: look-ups, a loss of single rows, drawing, references (SCIENCE 8.4, 8.11)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool3d, interpolate

from cardionets_core.config.study import Optimiser, Phase, Study
from cardionets_core.data.cohort import Cohort, empty_cohort
from cardionets_core.errors import ConfigError, UnknownNameError
from cardionets_core.evaluation import add_sums, case_ssim
from cardionets_core.models import MODULES, build_module, get_preset
from cardionets_core.models.cmr_generator import CmrGenerator
from cardionets_core.models.cmr_tokenizer import Posterior
from cardionets_core.models.diffusion_head import DiffusionHead
from cardionets_core.tasks import SiteView, generation_sums, make_task
from cardionets_core.tasks.cases import choose_cases, conditions_of, kept_conditions, row_seeds
from cardionets_core.tasks.drawing import draw_cines, draw_latents, drawing_settings, preset_of
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.local import train_locally
from cardionets_core.training.plan import plan_steps
from cardionets_core.training.tensors import export_tensors
from server.phase_order import tasks_of

NANO = shape_of("nano")
PRESET = get_preset("nano")
CPU = torch.device("cpu")
STRIPES = np.where(np.arange(96) // 24 % 2, 220, 30)


@pytest.fixture(autouse=True)
def one_thread(single_thread):
    """Bytes repeat with a fixed number of threads."""


class Spikes(nn.Module):
    """An ECG encoder: which way the spikes of a window point."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        return 0.3 * ecg_BLT.pow(3).mean(dim=(1, 2))[:, None] * self.scale


class Blocks(nn.Module):
    """A tokenizer: means over blocks of pixels, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(-8.0))

    def encode(self, cine_BFYX: torch.Tensor) -> Posterior:
        mean = avg_pool3d(cine_BFYX[:, None], (2, 4, 4)).repeat(1, 4, 1, 1, 1)
        return Posterior(mean_BZTHW=mean, log_variance_BZTHW=self.log_variance.expand_as(mean))

    def decode(self, latent_BZTHW: torch.Tensor) -> torch.Tensor:
        return 0.7 * interpolate(latent_BZTHW.mean(dim=1, keepdim=True), scale_factor=(2, 4, 4))[:, 0]


def make_modules() -> dict[str, nn.Module]:
    """A generator of one block for nano's tokens, between toys that are instant."""
    names = ("ecg_projection", "cmr_encoder")
    modules = {name: build_module(name, "nano", seed=1) for name in names}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = CmrGenerator(
            tokens=32, token_width=32, condition=32, width=32, depth=1, heads=2, buffer=2, dropout=0.0
        )
        generator.null_condition.data.normal_(std=0.02)
        for table in (generator.encoder_table, generator.decoder_table, generator.diffusion_table):
            table.data.normal_(std=0.2)
        head = DiffusionHead(token_width=32, condition=32, width=64, depth=1, times=1000)
    toys = {
        "ecg_encoder": Spikes(),
        "cmr_tokenizer": Blocks(),
        "cmr_generator": generator,
        "diffusion_head": head,
    }
    return {**modules, **toys}


def make_view(people: int, *, site: str = "a", seed: int = 0, ecg: bool = True) -> SiteView:
    """Spikes point up and the cine has upright stripes, or down and they lie; two rows a person.

    The first half of the people trains, the second is the test.
    """
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), 2)
    rows = len(person)
    up = person % 2 == 0
    spikes = rng.integers(-100, 100, (rows, 12, 1000))
    spikes[:, :, rng.integers(0, 1000, 60)] = np.where(up, 900, -900)[:, None, None]
    cines = np.where(up[:, None, None, None], STRIPES, STRIPES[:, None]) + rng.integers(
        -20, 20, (rows, 50, 1, 1)
    )
    cohort = Cohort(
        site=site,
        digest=f"{site}{seed}",
        ecg_counts=spikes.astype(np.int16).ravel(),
        ecg_offsets=np.arange(rows) * 1000,
        ecg_samples=np.full(rows, 1000),
        cines=np.broadcast_to(cines, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=person,
        row_split=np.where(person < people // 2, 0, 2).astype(np.int8),
        row_ecg=np.arange(rows) if ecg else np.full(rows, -1),
        row_cine=np.arange(rows),
        phenotypes=(np.where(up, 1.0, -1.0)[:, None] + 0.1 * rng.normal(size=(rows, 82))).astype(np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )
    return SiteView(cohort=cohort, shape=NANO, device=CPU)


def open_and_load(task, modules, site, role=0):
    task.prepare_modules(modules)
    role = task.roles[role]
    state = task.open_round(modules, site, role)
    rows = site.rows(role.needs, "train")
    return state, site.cohort.batch(rows, keys=task.batch_keys, shape=NANO)


def loss_of(task, modules, batch, state, seed=0):
    return task.loss(modules, batch, state, generator=torch.Generator().manual_seed(seed))


def phase(steps: int, *, batch_size: int = 32) -> Phase:
    optimiser = Optimiser(name="adamw", lr=3e-3, weight_decay=0.0, schedule="constant", clip_norm=3.0)
    return Phase(task="generate", rounds=1, local_steps=steps, batch_size=batch_size, optimiser=optimiser)


def test_a_step_loads_no_record():
    task, site = make_task("generate", {}), make_view(8)
    (step,) = plan_steps(task, site, role=task.roles[0], phase=phase(1), round_index=1, seed=0, epochs=1)
    assert step.batch.size == 8
    assert step.batch.ecg_BLT is None
    assert step.batch.cine_BFYX is None
    assert step.batch.row_B.tolist() == step.rows.tolist()


def test_conditions_are_unnormalised_and_of_the_three_windows_mean():
    modules, site = make_modules(), make_view(8)
    task = make_task("generate", {})
    kept = kept_conditions(modules, site, needs=task.needs, split="train")
    row = site.rows(task.needs, "train")[3]
    windows = [
        site.cohort.batch(np.array([row]), keys=frozenset({"ecg"}), shape=NANO, window=w).ecg_BLT
        for w in range(3)
    ]
    assert not torch.equal(windows[0], windows[1])
    with torch.no_grad():
        feature = torch.stack([modules["ecg_encoder"](each) for each in windows]).mean(dim=0)
        expected = modules["ecg_projection"](feature)[0]
    assert torch.allclose(kept[3], expected, atol=1e-5)
    assert torch.allclose(conditions_of(modules, site, np.array([row]))[0], expected, atol=1e-5)
    state, batch = open_and_load(task, modules, site)
    assert torch.equal(state.conditions.take(batch.row_B), kept)


def test_the_loss_is_the_mean_of_the_rows_own_and_no_row_sees_another():
    task, modules = make_task("generate", {}), make_modules()
    # An output layer of zeros would hide what the condition does.
    nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    state, batch = open_and_load(task, modules, make_view(8))
    found = loss_of(task, modules, batch, state)
    assert found.per_sample_B.shape == (8,)
    assert torch.allclose(found.per_sample_B.mean(), found.total)
    mean = state.latents.posterior_N.mean_BZTHW
    mean[0] = -mean[0]
    other = loss_of(task, modules, batch, state)
    assert torch.allclose(other.per_sample_B[1:], found.per_sample_B[1:], atol=1e-6)
    assert abs(float((other.per_sample_B[0] - found.per_sample_B[0]).detach())) > 1e-4


def test_what_is_dropped_has_no_gradient_from_the_ecg():
    for drop in (0.0, 1.0):
        task, modules = make_task("generate", {"label_drop": drop}), make_modules()
        nn.init.normal_(
            modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1)
        )
        state, batch = open_and_load(task, modules, make_view(4))
        loss_of(task, modules, batch, state).total.backward()
        generator = modules["cmr_generator"]
        of_ecg = generator.condition_path[0].weight.grad.abs().sum()
        of_null = generator.null_condition.grad.abs().sum()
        assert (of_ecg > 0, of_null > 0) == (drop == 0.0, drop == 1.0)


def test_sites_with_cines_alone_train_the_null_condition_where_the_study_lets_them():
    assert len(make_task("generate", {}).roles) == 1
    task, modules = make_task("generate", {"cine_only_sites": True}), make_modules()
    nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    state, batch = open_and_load(task, modules, make_view(4, ecg=False), role=1)
    loss_of(task, modules, batch, state).total.backward()
    assert modules["cmr_generator"].null_condition.grad.abs().sum() > 0
    assert not modules["cmr_generator"].condition_path[0].weight.grad.any()


def test_frozen_modules_keep_every_byte_and_the_trained_ones_move():
    task, modules, site = make_task("generate", {}), make_modules(), make_view(8)
    before = {name: export_tensors(module) for name, module in modules.items()}
    train_locally(task, modules, site, phase=phase(3), round_index=1, seed=0)
    for name in (*task.trains, *task.reads):
        after = export_tensors(modules[name])
        same = all(np.array_equal(value, before[name][key]) for key, value in after.items())
        assert same == (name in task.reads), name
        assert name in task.trains or all(p.grad is None for p in modules[name].parameters())


def test_a_drawn_cine_follows_from_its_own_seed_and_condition_alone():
    modules = make_modules()
    nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    settings = drawing_settings(PRESET)
    condition = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    seeds = row_seeds(5, range(40), site="a")
    assert len(set(seeds)) == 40
    together = draw_cines(modules, condition, settings=settings, seeds=seeds, device=CPU)
    assert together.shape == (40, 8, 32, 32)
    assert together.abs().max() <= 1.0
    for row in (0, 33):
        alone = draw_cines(
            modules, condition[row : row + 1], settings=settings, seeds=seeds[row : row + 1], device=CPU
        )
        assert torch.allclose(alone[0], together[row], atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_without_a_condition_the_null_vector_stands_in_its_place():
    modules = make_modules()
    nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    settings, condition = drawing_settings(PRESET, guidance=1.0), torch.randn(3, 32)
    draw = {"settings": settings, "seeds": [1, 2, 3], "device": CPU}
    plain = draw_latents(modules, condition, **draw, conditional=False)
    assert torch.equal(plain, draw_latents(modules, -condition, **draw, conditional=False))
    assert not torch.allclose(plain, draw_latents(modules, condition, **draw), atol=1e-3)
    # The same generator, whose path from any condition ends at the null vector.
    path = modules["cmr_generator"].condition_path
    nn.init.zeros_(path[1].weight)
    path[1].bias.data = modules["cmr_generator"].null_condition.data.clone()
    assert torch.allclose(plain, draw_latents(modules, condition, **draw), atol=1e-5)


def test_a_guidance_of_one_agrees_with_the_guided_formula():
    modules, condition = make_modules(), torch.randn(3, 32)
    nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    settings = drawing_settings(PRESET, guidance=1.0)
    plain, guided = (
        draw_latents(
            modules,
            condition,
            settings=replace(settings, plan=replace(settings.plan, guidance=g)),
            seeds=[1, 2, 3],
            device=CPU,
        )
        for g in (1.0, 1.0 + 1e-9)
    )
    assert torch.allclose(plain, guided, atol=1e-4)


def test_a_cine_of_several_draws_is_the_mean_of_their_latents():
    # Rounding grows along a draw, with some conditions beyond the bound below (1e-4): always this one (1e-6).
    modules, condition = make_modules(), torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    given = {"device": CPU, "seeds": [1, 2, 3]}
    one, two, many = (
        draw_latents(modules, condition, settings=drawing_settings(PRESET, draws=draws), **given)
        for draws in (1, 2, 12)
    )
    assert torch.equal(one, draw_latents(modules, condition, settings=drawing_settings(PRESET), **given))
    other = 2 * two - one  # but for the normalisation, what the second draw must have been
    assert (other - one).abs().mean() > 0.1 * one.abs().mean()
    assert torch.allclose(two.flatten(1).mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(two.flatten(1).std(1, unbiased=False), torch.ones(3), atol=1e-3)
    # Means of twelve with other seeds differ less than single draws do, and a row has its own.
    again = {**given, "seeds": [4, 5, 6]}
    apart = [
        (first - draw_latents(modules, condition, settings=drawing_settings(PRESET, draws=draws), **again))
        for first, draws in ((one, 1), (many, 12))
    ]
    assert apart[1].square().mean() < 0.5 * apart[0].square().mean()
    alone = draw_latents(
        modules, condition[1:2], settings=drawing_settings(PRESET, draws=2), seeds=[2], device=CPU
    )
    assert torch.allclose(alone[0], two[1], atol=1e-4)


def test_the_options_of_drawing():
    assert drawing_settings(PRESET).plan == PRESET.sampling
    chosen = drawing_settings(PRESET, steps=2, diffusion_steps=5, guidance=2.5).plan
    assert (chosen.steps, chosen.diffusion_steps, chosen.guidance) == (2, 5, 2.5)
    assert [drawing_settings(PRESET, draws=draws).draws for draws in (0, 1, 4)] == [1, 1, 4]
    with pytest.raises(ConfigError, match="1 to 32 and 2 to 100"):
        drawing_settings(PRESET, steps=33)
    assert [preset_of(shape_of(name)).name for name in ("nano", "small", "paper")] == [
        "nano",
        "small",
        "paper",
    ]
    with pytest.raises(UnknownNameError):
        preset_of(replace(NANO, preset="huge"))
    for options in (
        {"label_drop": 1.5},
        {"repeats": 0},
        {"guidance": -1.0},
        {"temperature": -0.1},
        {"draws": -1},
    ):
        with pytest.raises(ConfigError):
            make_task("generate", options)


def test_cases_are_one_row_of_a_person():
    site = make_view(20)
    rows = site.rows(frozenset({"ecg"}), "test")
    cases = choose_cases(site.cohort, rows, most=7, seed=1)
    assert len(cases) == len(set(site.cohort.row_patient[cases])) == 7
    assert set(cases) <= set(rows)
    assert cases.tolist() == choose_cases(site.cohort, rows, most=7, seed=1).tolist()
    assert cases.tolist() != choose_cases(site.cohort, rows, most=7, seed=2).tolist()


def test_references_are_measured_on_the_same_cases(monkeypatch):
    """A generator that returns the true cine of the ECG it is given: perfect, and worse with another's."""
    task, modules, site = make_task("generate", {"measured_patients": 12}), make_modules(), make_view(24)
    rng = np.random.default_rng(0)
    site.cohort.cines[:] = rng.integers(0, 256, site.cohort.cines.shape)
    true = site.cohort.batch(np.arange(48), keys=frozenset({"cine"}), shape=NANO).cine_BFYX
    with torch.no_grad():
        known = conditions_of(modules, site, np.arange(48))

    def draw(modules, condition_BP, *, settings, seeds, device, conditional=True):
        assert len(seeds) == len(condition_BP)
        nearest = (condition_BP[:, None] - known).abs().sum(dim=2).argmin(dim=1)
        return true[nearest] if conditional else torch.zeros_like(true[nearest])

    monkeypatch.setattr(generation_sums, "draw_cines", draw)
    sums = task.metric_sums(modules, site, split="test", seed=0)
    found = task.metrics(sums)
    assert found["n_patients"] == 12
    assert found["ssim"] == pytest.approx(1.0)
    assert found["frechet"] == pytest.approx(0.0, abs=1e-6)
    cases = choose_cases(site.cohort, site.rows(task.needs, "test"), most=12, seed=0)
    own = true[torch.from_numpy(cases)]
    mean = true[torch.from_numpy(site.rows(task.needs, "train"))].mean(dim=0).expand_as(own)
    for name, cine in (("shuffled", own.roll(-1, dims=0)), ("unconditional", own * 0), ("mean_cine", mean)):
        assert found[f"ssim_{name}"] == pytest.approx(float(case_ssim(cine, own).mean()), abs=1e-6)
        assert found[f"ssim_gain_{name}"] == pytest.approx(1.0 - found[f"ssim_{name}"], abs=1e-6)
    gain = 1.0 - case_ssim(own.roll(-1, dims=0), own)
    assert found["ssim_gain_shuffled_se"] == pytest.approx(float(gain.std() / 12**0.5), rel=1e-4)
    assert found["phenotype_r_drawn"] == pytest.approx(found["phenotype_r_real"])


def test_some_steps_lower_the_held_out_loss():
    task = make_task("generate", {"repeats": 1, "ar_steps": 1, "diffusion_steps": 2, "measured_patients": 8})
    modules, site = make_modules(), make_view(32)
    before = task.metrics(task.metric_sums(modules, site, split="test", seed=0))
    assert train_locally(task, modules, site, phase=phase(40), round_index=1, seed=0).steps == 40
    after = task.metrics(task.metric_sums(modules, site, split="test", seed=0))
    assert after["loss"] < 0.5 * before["loss"]


@pytest.mark.slow
def test_drawn_cines_follow_the_ecg_after_some_steps():
    """Which way the stripes run follows from the spikes. About half a minute."""
    task = make_task("generate", {"guidance": 1.0, "ar_steps": 2, "measured_patients": 32})
    modules, site = make_modules(), make_view(64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = DiffusionHead(token_width=32, condition=32, width=128, depth=2, times=1000)
        head.draw_weights(torch.Generator().manual_seed(0))
    modules["diffusion_head"] = head
    train_locally(task, modules, site, phase=phase(400, batch_size=16), round_index=1, seed=0)
    found = task.metrics(task.metric_sums(modules, site, split="test", seed=0))
    assert found["ssim"] > 0.8
    for reference in ("shuffled", "unconditional", "mean_cine"):
        assert found[f"ssim_gain_{reference}"] > 3 * found[f"ssim_gain_{reference}_se"] > 0, reference
    assert found["phenotype_r_drawn"] > 0.6


def test_sums_of_sites_add_and_nobody_runs_no_module():
    task, modules = make_task("generate", {"measured_patients": 5}), make_modules()
    by_site = {
        name: task.metric_sums(modules, make_view(people, site=name), split="test", seed=0)
        for name, people in (("a", 12), ("b", 2))
    }
    assert by_site["b"]["n_patients"] == 1
    assert by_site["b"]["shuffled/n"] == 0, "there is no other person"
    pooled = task.metrics(add_sums(by_site))
    assert pooled["n_patients"] == 6
    assert pooled["ssim"] == pytest.approx(sum(by_site[s]["drawn/ssim"][0] for s in "ab") / 6)
    assert all(np.isfinite(value) for value in pooled.values())
    nobody = SiteView(cohort=empty_cohort(site="", phenotypes=82), shape=NANO, device=CPU)
    meta = {name: build_module(name, "nano", seed=0, device="meta") for name in MODULES}
    zero = task.metric_sums(meta, nobody, split="test", seed=0)
    assert {n: v.shape for n, v in zero.items()} == {n: v.shape for n, v in by_site["a"].items()}
    assert not any(value.any() for value in zero.values())
    assert task.metrics(zero) == {"n_rows": 0.0, "n_patients": 0.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 1.5}, "a temperature of 1.5"),
        ({"ar_steps": 2}, "2 autoregressive"),
        ({"diffusion_steps": 2000}, "2000 denoising"),
    ],
)
def test_what_latent_diffusion_cannot_draw_with_is_refused_before_anything_is_sent(options, said):
    steps = {"rounds": 1, "local_steps": 1, "batch_size": 2, "optimiser": {"lr": 1e-3}}
    phases = [{"task": "tokenizer", **steps}, {"task": "generate", **steps, "options": options}]
    content = {"name": "s", "phases": phases, "parts": {"cmr_generator": "diffusion"}}
    with pytest.raises(ConfigError, match=said):
        tasks_of(Study.model_validate(content))
    tasks_of(Study.model_validate({**content, "phases": phases[:1]}))
