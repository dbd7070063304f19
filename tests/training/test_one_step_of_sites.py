"""One full-batch SGD step of many sites is the pooled step where the loss decomposes (SCIENCE 8.7).

Masks and noise are drawn for one row and serve all, so that a row has the same draws at its site and in the
pool. The losses of `align` are in tests/tasks/test_align; the way over orders and replies in tests/rounds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data import image_windows
from cardionets_core.data.cohort import Cohort, concatenate
from cardionets_core.losses.diffusion import DiffusionDraw, draw_diffusion
from cardionets_core.losses.latent_diffusion import LatentDiffusionDraw, draw_latent_diffusion
from cardionets_core.models import build_module, get_preset
from cardionets_core.models.cmr_generator import CmrGenerator
from cardionets_core.models.cmr_tokenizer import CmrTokenizer, Posterior, draw_latent
from cardionets_core.models.generator_masking import draw_generator_mask
from cardionets_core.models.masking import PatchMask, draw_mask
from cardionets_core.models.two_view_augmentation import Pose, draw_pose
from cardionets_core.tasks import (
    SiteView,
    generate,
    latent_diffusion,
    make_task,
    masked_autoencoders,
    two_view_pretraining,
)
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training import export_tensors, load_tensors, train_locally

ROWS = {"a": 4, "b": 7, "c": 2}
OPTIONS = {
    "generate": {"label_drop": 0.0},
    "phenotype": {"windows": "mean", "bootstrap_replicates": 1},
    "screening": {"train_encoder": True, "bootstrap_replicates": 1},
}
LATER, EARLIER = "nano", "nano+cardiacnets"
# (models, task, further options, rate of SGD), in either generation and view.
CASES = [
    (LATER, "ecg_mae", {}, 1.0),
    (LATER, "cmr_mae", {}, 1.0),
    (LATER, "cmr_mae", {"view": "sax"}, 1.0),
    (LATER, "tokenizer", {}, 0.05),
    (LATER, "tokenizer", {"view": "sax"}, 0.05),
    (LATER, "generate", {}, 0.5),
    (LATER, "phenotype", {}, 1.0),
    (LATER, "screening", {}, 1.0),
    (EARLIER, "ecg_mae", {}, 0.1),
    (EARLIER, "cmr_mae", {"contrast": "cosine", "augment": False}, 0.1),
    (EARLIER, "cmr_mae", {"contrast": "off"}, 0.1),
    (EARLIER, "generate", {}, 0.5),
    (EARLIER, "screening", {}, 0.1),
]


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, and small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cohort(rows: int, *, site: str, seed: int, samples: int) -> Cohort:
    """Rows with everything and one window each; a third of the values and labels is missing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, 8)).astype(np.float32)
    labels[:, 5:] = np.eye(3)[rng.integers(0, 3, rows)]
    labels[::3, 2] = np.nan
    phenotypes = rng.normal(size=(rows, 82)).astype(np.float32)
    phenotypes[rng.random(phenotypes.shape) < 0.3] = np.nan
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=rng.integers(-900, 900, rows * 12 * samples).astype(np.int16),
        ecg_offsets=np.arange(rows) * samples,
        ecg_samples=np.full(rows, samples),
        cines=rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.arange(rows),
        row_views={"sax": np.arange(rows)[::-1].copy()},
        phenotypes=phenotypes,
        diseases=labels,
    )


def make_modules(task, models: str) -> dict[str, nn.Module]:
    """Nano modules; those of the generator without dropout, the tokenizer a small one."""
    modules = {name: build_module(name, models, seed=1) for name in (*task.trains, *task.reads)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in {"cmr_tokenizer", "sax_tokenizer"} & set(modules):
            modules[name] = CmrTokenizer(
                channels=4, multipliers=(1, 1, 1), blocks=1, latent=4, groups=2, heads=1, time_halvings=1
            )
        if models == EARLIER and "cmr_generator" in modules:
            for parameter in modules["cmr_generator"].parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.1)
        elif "cmr_generator" in modules:
            modules["cmr_generator"] = CmrGenerator(
                tokens=32, token_width=32, condition=32, width=64, depth=1, heads=2, buffer=2, dropout=0.0
            )
            # Output layers of zeros would stop the generator's gradient.
            nn.init.normal_(modules["diffusion_head"].out.weight, std=0.1)
    return modules


@pytest.fixture
def same_draws(monkeypatch):
    """What is drawn for one row serves every row: from a seed, as a task's stream moves on with the rows."""

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(4)

    def spread(one: PatchMask, rows: int) -> PatchMask:
        visible, hidden = (part.expand(rows, *part.shape[1:]) for part in (one.visible, one.hidden))
        return PatchMask(visible=visible, hidden=hidden)

    def mask(leading, *, patches, visible, generator):
        if not leading:  # one mask for all rows of a batch
            return draw_mask((), patches=patches, visible=visible, generator=seeded())
        one = draw_mask((1, *leading[1:]), patches=patches, visible=visible, generator=seeded())
        return spread(one, leading[0])

    def generator_mask(rows, *, tokens, generator):
        one = draw_generator_mask(1, tokens=tokens, generator=seeded())
        return spread(one, rows)

    def latent(posterior: Posterior, *, generator):
        noise = torch.randn(posterior.mean_BZTHW.shape[1:], generator=seeded())
        return draw_latent(posterior, noise_BZTHW=noise.expand_as(posterior.mean_BZTHW))

    def diffusion(shape, *, process, generator, repeats):
        one = draw_diffusion((1, *shape[1:]), process=process, generator=seeded(), repeats=repeats)
        time, noise = one.time_BN, one.noise_BNK
        return DiffusionDraw(
            time_BN=time.expand(shape[0], -1), noise_BNK=noise.expand(shape[0], *noise.shape[1:])
        )

    def latent_noise(shape, *, process, generator):
        one = draw_latent_diffusion((1, *shape[1:]), process=process, generator=seeded())
        return LatentDiffusionDraw(
            time_B=one.time_B.expand(shape[0]), noise_BZTHW=one.noise_BZTHW.expand(shape)
        )

    def pose(rows, *, generator):
        one = draw_pose(1, generator=seeded())
        return Pose(
            angle_rad_B=one.angle_rad_B.expand(rows),
            scale_B=one.scale_B.expand(rows),
            shift_B2=one.shift_B2.expand(rows, -1),
        )

    monkeypatch.setattr(image_windows, "FLIP_SHARE", 0.0)
    monkeypatch.setattr(masked_autoencoders, "draw_mask", mask)
    monkeypatch.setattr(two_view_pretraining, "draw_mask", mask)
    monkeypatch.setattr(two_view_pretraining, "draw_pose", pose)
    monkeypatch.setattr(latent_diffusion, "draw_latent", latent)
    monkeypatch.setattr(latent_diffusion, "draw_latent_diffusion", latent_noise)
    monkeypatch.setattr(generate, "draw_generator_mask", generator_mask)
    monkeypatch.setattr(generate, "draw_latent", latent)
    monkeypatch.setattr(generate, "draw_diffusion", diffusion)
    monkeypatch.setattr(CmrTokenizer, "draw", staticmethod(latent))


def step_of(task, cohort: Cohort, *, start, models: str, rate: float) -> dict[str, np.ndarray]:
    """The trained tensors after one SGD step on all rows of a cohort."""
    modules = make_modules(task, models)
    for name, tensors in start.items():
        load_tensors(modules[name], tensors)
    phase = Phase(
        task=task.name,
        rounds=1,
        local_steps=1,
        batch_size=64,
        optimiser=Optimiser(name="sgd", lr=rate, weight_decay=0.0, schedule="constant"),
    )
    site = SiteView(cohort=cohort, shape=shape_of(models), device=torch.device("cpu"))
    result = train_locally(task, modules, site, phase=phase, round_index=1, seed=3)
    assert (result.samples, result.steps) == (len(cohort.row_patient), 1)
    return flat({name: export_tensors(modules[name]) for name in task.trains})


def flat(modules) -> dict[str, np.ndarray]:
    return {
        f"{m}.{key}": v.astype(np.float64) for m, tensors in modules.items() for key, v in tensors.items()
    }


@pytest.mark.parametrize(
    ("models", "name", "options", "rate"), CASES, ids=lambda part: str(part) if part != {} else None
)
def test_the_mean_of_the_sites_is_the_pooled_step(models, name, options, rate, same_draws):
    task = make_task(name, {**OPTIONS.get(name, {}), **options}, get_preset(models).parts)
    assert task.decomposes
    samples = shape_of(models).ecg_samples
    sites = [make_cohort(rows, site=site, seed=rows, samples=samples) for site, rows in ROWS.items()]
    start = {n: export_tensors(module) for n, module in make_modules(task, models).items()}
    ends = [step_of(task, cohort, start=start, models=models, rate=rate) for cohort in sites]
    pooled = step_of(task, concatenate(sites, site="all"), start=start, models=models, rate=rate)
    before = flat({n: start[n] for n in task.trains})
    apart = moved = 0.0
    for key, value in pooled.items():
        mean = np.average([end[key] for end in ends], axis=0, weights=list(ROWS.values()))
        np.testing.assert_allclose(mean, value, atol=1e-6, rtol=0, err_msg=key)
        moved = max(moved, float(np.abs(value - before[key]).max()))
        apart = max(apart, float(np.abs(ends[0][key] - value).max()))
    assert moved > 1e-3 and apart > 1e-4, "the step must be one, and differ from site to site"
