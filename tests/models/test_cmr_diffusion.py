"""The denoiser of whole latents: sizes, what it reads, gradients of single rows (arXiv 2212.09748)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cardionets_core.losses.latent_diffusion import (
    LatentDiffusionDraw,
    LatentProcess,
    draw_latent_diffusion,
    latent_diffusion_loss,
)
from cardionets_core.models import MODULES, build_module
from cardionets_core.models.cmr_diffusion import CmrDiffusion
from cardionets_core.models.transformer import DrawsOwnWeights
from cardionets_core.privacy.per_sample import ClippedSums, choose_mode

LATENT = (4, 4, 8, 8)
NANO = {"latent": LATENT, "patch": (2, 2, 2), "condition": 64, "width": 64, "depth": 4, "heads": 4}
PAPER = {
    "latent": (16, 25, 12, 12),
    "patch": (5, 2, 2),
    "condition": 768,
    "width": 768,
    "depth": 24,
    "heads": 12,
}
ROWS = 3


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(MODULES, "cmr_diffusion", lambda preset: CmrDiffusion(**NANO))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh(seed: int = 0) -> CmrDiffusion:
    model = build_module("cmr_diffusion", "nano", seed=seed)
    assert isinstance(model, CmrDiffusion)
    return model


def awake(seed: int = 0) -> CmrDiffusion:
    """With noise on all weights, so that no layer is zero."""
    model, draw = fresh(seed), torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


NOISY, CONDITION = normal(ROWS, *LATENT), normal(ROWS, 12, 64, seed=1)
TIME = torch.tensor([0, 400, 999])


# -- Sizes and first weights ---------------------------------------------------------------------------


def counted(sizes: dict) -> int:
    """By hand."""
    z, t, h, w = sizes["latent"]
    pt, ph, pw = sizes["patch"]
    tokens, values = (t // pt) * (h // ph) * (w // pw), z * pt * ph * pw
    c, d = sizes["condition"], sizes["width"]
    self_attention, cross = 4 * d * d + 4 * d, 2 * d + 4 * d * d + 4 * d
    block = self_attention + cross + 8 * d * d + 5 * d + 6 * d * d + 6 * d
    time, read = 256 * d + d + d * d + d, 2 * c + c * d + d
    ends = values * d + d + tokens * d + c + 2 * d * d + 2 * d + d * values + values
    return time + read + ends + sizes["depth"] * block


@pytest.mark.parametrize("sizes", [NANO, PAPER])
def test_parameters_and_shapes_on_the_meta_device(sizes):
    with torch.device("meta"):
        model = CmrDiffusion(**sizes)
        noisy = torch.empty(2, *sizes["latent"])
        found = model(noisy, torch.empty(2, dtype=torch.int64), torch.empty(2, 7, sizes["condition"]))
    assert found.shape == noisy.shape and found.dtype == torch.float32
    assert sum(parameter.numel() for parameter in model.parameters()) == counted(sizes)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert model.takes_tokens and isinstance(model, DrawsOwnWeights)


def test_shapes_of_the_parameters():
    shapes = {name: tuple(parameter.shape) for name, parameter in fresh().named_parameters()}
    block = {
        name.removeprefix("blocks.3."): shape
        for name, shape in shapes.items()
        if name.startswith("blocks.3.")
    }
    assert block == {
        "attention.qkv.weight": (192, 64),
        "attention.qkv.bias": (192,),
        "attention.out.weight": (64, 64),
        "attention.out.bias": (64,),
        "norm_cross.weight": (64,),
        "norm_cross.bias": (64,),
        "cross.query.weight": (64, 64),
        "cross.query.bias": (64,),
        "cross.key_value.weight": (128, 64),
        "cross.key_value.bias": (128,),
        "cross.out.weight": (64, 64),
        "cross.out.bias": (64,),
        "mlp.0.weight": (256, 64),
        "mlp.0.bias": (256,),
        "mlp.2.weight": (64, 256),
        "mlp.2.bias": (64,),
        "modulation.1.weight": (384, 64),
        "modulation.1.bias": (384,),
    }
    assert {name: shape for name, shape in shapes.items() if not name.startswith("blocks.")} == {
        "table": (32, 64),
        "null_condition": (64,),
        "embed.weight": (64, 32),
        "embed.bias": (64,),
        "time_mlp.0.weight": (64, 256),
        "time_mlp.0.bias": (64,),
        "time_mlp.2.weight": (64, 64),
        "time_mlp.2.bias": (64,),
        "condition_norm.weight": (64,),
        "condition_norm.bias": (64,),
        "condition_layer.weight": (64, 64),
        "condition_layer.bias": (64,),
        "modulation.1.weight": (128, 64),
        "modulation.1.bias": (128,),
        "out.weight": (32, 64),
        "out.bias": (32,),
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    torch.manual_seed(1)
    first = fresh(5).state_dict()
    torch.manual_seed(2)
    again, other = fresh(5).state_dict(), fresh(6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["table"], other["table"])
    meta = build_module("cmr_diffusion", "nano", seed=5, device="meta")
    assert {key: value.shape for key, value in meta.state_dict().items()} == {
        key: value.shape for key, value in first.items()
    }


def test_weights_begin_as_the_text_says_and_predict_no_noise():
    model = fresh()
    for layer in (model.out, model.modulation[-1], *(block.modulation[-1] for block in model.blocks)):
        assert not layer.weight.any() and not layer.bias.any()
    assert not any(block.cross.out.weight.any() for block in model.blocks)
    assert model.table.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.time_mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.null_condition.std().item() == pytest.approx(1.0, rel=0.3)
    assert all(block.attention.qkv.weight.any() for block in model.blocks)
    assert not model(NOISY, TIME, CONDITION).any()


def test_a_block_begins_as_the_identity():
    block = fresh().blocks[0]
    stream, time = normal(ROWS, 32, 64), normal(ROWS, 1, 64, seed=1)
    read = block.cross.read(normal(ROWS, 12, 64, seed=2))
    assert torch.equal(block(stream, time, read), stream)
    with torch.no_grad():
        block.modulation[-1].bias.fill_(1.0)
        assert not torch.allclose(block(stream, time, read), stream, atol=1e-3)


def test_a_latent_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        CmrDiffusion(**{**NANO, "patch": (3, 2, 2)})


# -- What it reads -------------------------------------------------------------------------------------


def test_dropped_rows_see_the_null_condition_and_the_others_their_own():
    model, dropped = awake(), torch.tensor([True, False, True])
    with torch.no_grad():
        plain = model(NOISY, TIME, CONDITION)
        found = model(NOISY, TIME, CONDITION, dropped)
        other = model(NOISY, TIME, CONDITION + 3 * normal(ROWS, 12, 64, seed=2), dropped)
        null = model(NOISY, TIME, model.null_tokens(CONDITION))
        none = model(NOISY, TIME, CONDITION, torch.zeros(ROWS, dtype=torch.bool))
    assert torch.equal(found[dropped], other[dropped]), "whatever their ECG"
    assert not torch.allclose(found[1], other[1], atol=1e-3)
    assert torch.equal(found[1], plain[1]) and torch.equal(none, plain)
    assert torch.equal(found[dropped], null[dropped])
    assert not torch.allclose(found[0], plain[0], atol=1e-3)
    assert torch.equal(model.null_tokens(CONDITION)[1, 5], model.null_condition)


def test_one_null_token_stands_for_all():
    model = awake()
    with torch.no_grad():
        many = model(NOISY, TIME, model.null_tokens(CONDITION))
        one = model(NOISY, TIME, model.null_tokens(CONDITION[:, :1]))
    assert torch.allclose(many, one, atol=1e-5)


def test_every_ecg_token_counts_and_the_order_of_the_others_does_not():
    model = awake()
    with torch.no_grad():
        plain = model(NOISY, TIME, CONDITION)
        for token in range(12):
            changed = CONDITION.clone()
            changed[:, token] += normal(64, seed=3)
            moved = (model(NOISY, TIME, changed) - plain).flatten(1).abs().amax(dim=1)
            assert (moved > 1e-4).all(), token
        shuffled = torch.cat([CONDITION[:, :1], CONDITION[:, 1:].flip(1)], dim=1)
        assert torch.allclose(model(NOISY, TIME, shuffled), plain, atol=1e-5)
        assert not torch.allclose(model(NOISY, TIME, CONDITION.flip(1)), plain, atol=1e-3), "but the first's"


def test_every_latent_value_reaches_every_token():
    model = awake()
    with torch.no_grad():
        plain = model(NOISY, TIME, CONDITION)
        changed = NOISY.clone()
        changed[:, 1, 3, 7, 0] += 1.0
        moved = (model(changed, TIME, CONDITION) - plain).abs()
    assert (moved.amax(dim=(1, 2)) > 0).all()


def test_the_first_token_steers_even_where_nothing_is_attended_to():
    model = awake()
    with torch.no_grad():
        for block in model.blocks:
            block.cross.out.weight.zero_()
        plain = model(NOISY, TIME, CONDITION)
        for token, steers in ((0, True), (1, False), (11, False)):
            changed = CONDITION.clone()
            changed[:, token] += normal(64, seed=3)
            moved = (model(NOISY, TIME, changed) - plain).flatten(1).abs().amax(dim=1)
            assert (moved > 1e-4).all() if steers else not moved.any(), token


def test_places_differ_and_time_matters():
    model = awake()
    even, condition = torch.zeros(1, *LATENT), CONDITION[:1]
    with torch.no_grad():
        found = model(even, TIME[:1], condition)
        assert not torch.allclose(found[..., :2, :2], found[..., 2:4, 2:4], atol=1e-3)
        times = [model(NOISY[:1], torch.tensor([time]), condition) for time in (0, 1, 500, 999)]
    for before, after in itertools.pairwise(times):
        assert not torch.allclose(before, after, atol=1e-4)


def test_rows_do_not_depend_on_each_other_and_none_is_legal():
    model = awake()
    with torch.no_grad():
        together = model(NOISY, TIME, CONDITION)
        alone = model(NOISY[1:2], TIME[1:2], CONDITION[1:2])
        none = model(NOISY[:0], TIME[:0], CONDITION[:0])
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert none.shape == (0, *LATENT)


def test_what_was_read_once_serves_every_time_and_training_changes_nothing():
    model = awake()
    with torch.no_grad():
        reads = model.read(CONDITION)
        found = model.predict(NOISY, TIME, reads=reads)
        assert torch.equal(found, model(NOISY, TIME, CONDITION))
        assert torch.equal(found, model.train()(NOISY, TIME, CONDITION)), "nothing is dropped"


def test_half_precision_gives_float32_near_that_of_full_precision():
    model = awake()
    with torch.no_grad():
        full = model(NOISY, TIME, CONDITION)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(NOISY, TIME, CONDITION, torch.zeros(ROWS, dtype=torch.bool))
    assert half.dtype == torch.float32
    assert float((half - full).abs().max() / full.abs().max()) < 0.05


# -- Gradients -----------------------------------------------------------------------------------------

PROCESS = LatentProcess()
DRAW = draw_latent_diffusion((5, *LATENT), process=PROCESS, generator=torch.Generator().manual_seed(2))
DROPPED = torch.tensor([False, True, False, False, True])
CLEAN, ECGS = normal(5, *LATENT, seed=4), normal(5, 12, 64, seed=5)


def losses(model: CmrDiffusion, begin: int, end: int) -> torch.Tensor:
    some = slice(begin, end)
    return latent_diffusion_loss(
        lambda noisy, time: model(noisy, time, ECGS[some], DROPPED[some]),
        CLEAN[some],
        process=PROCESS,
        draw=LatentDiffusionDraw(time_B=DRAW.time_B[some], noise_BZTHW=DRAW.noise_BZTHW[some]),
    )


@pytest.mark.parametrize("mode", ["layers", "loop"])
def test_the_sum_of_clipped_gradients_equals_that_of_single_ones(mode):
    model = awake().train()
    assert choose_mode({"cmr_diffusion": model}, compiled=False) == "layers"
    names, parameters = zip(*model.named_parameters(), strict=True)
    single = [torch.autograd.grad(losses(model, row, row + 1).sum(), parameters) for row in range(5)]
    sizes = [float(torch.stack([g.double().square().sum() for g in each]).sum().sqrt()) for each in single]
    clip = float(np.median(sizes))
    summed = ClippedSums({"cmr_diffusion": model}, clip_norm=clip, mode=mode, first_rows=5)
    norms = summed.add(lambda begin, end: losses(model, begin, end), rows=5)
    assert norms.numpy() == pytest.approx(np.array(sizes), rel=2e-5)
    factors = [min(1.0, clip / size) for size in sizes]
    assert min(factors) < 1.0 <= max(factors)
    for name, found, *each in zip(names, summed.take(), *single, strict=True):
        wanted = sum(factor * gradient for factor, gradient in zip(factors, each, strict=True))
        assert wanted.any(), name
        assert float((found - wanted).abs().max()) <= 2e-5 * clip, name


def test_the_null_condition_learns_from_dropped_rows_alone():
    model = awake().train()
    for row, dropped in enumerate(DROPPED.tolist()):
        (found,) = torch.autograd.grad(losses(model, row, row + 1).sum(), model.null_condition)
        assert bool(found.any()) == dropped


def test_the_loss_falls_on_a_toy():
    """Two ECGs with a latent each: the noise is found once the latent is known by its ECG."""
    model = CmrDiffusion(latent=(1, 2, 4, 4), patch=(1, 2, 2), condition=8, width=32, depth=2, heads=2)
    generator = torch.Generator().manual_seed(0)
    model.draw_weights(generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    latent = normal(2, 1, 2, 4, 4).repeat(16, 1, 1, 1, 1)
    condition, found = normal(2, 3, 8, seed=1).repeat(16, 1, 1), []
    for _ in range(150):
        draw = draw_latent_diffusion(tuple(latent.shape), process=PROCESS, generator=generator)
        loss = latent_diffusion_loss(
            lambda noisy, time: model(noisy, time, condition), latent, process=PROCESS, draw=draw
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(loss.detach()))
    assert np.mean(found[:2]) == pytest.approx(1.0, abs=0.1)
    assert np.mean(found[-30:]) < 0.5 * np.mean(found[:2])
