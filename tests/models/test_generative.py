"""Tokenizer, generator, diffusion head: sizes, shapes, masks, gradients of single rows (SCIENCE 2, 6, 8)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from cardionets_core.models import MODULES, PRESETS, build_module, get_preset
from cardionets_core.models.cmr_generator import CmrGenerator
from cardionets_core.models.cmr_tokenizer import CmrTokenizer, Posterior, draw_latent, normalise_latent
from cardionets_core.models.diffusion_head import time_features
from cardionets_core.models.generator_masking import draw_generator_mask, draw_mask_rate, new_tokens
from cardionets_core.models.masking import gather_patches
from cardionets_core.models.patches import patchify_latent, unpatchify_latent
from cardionets_core.models.solved import Solved


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_tokenizer() -> CmrTokenizer:
    torch.manual_seed(0)
    return CmrTokenizer(
        channels=8, multipliers=(1, 2, 2), blocks=1, latent=4, groups=4, heads=2, time_halvings=1
    )


def awake(module: nn.Module) -> nn.Module:
    """The module with noise on all weights, so that no layer is zero."""
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return module


# -- Sizes and shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_shapes_on_the_meta_device(preset):
    sizes = get_preset(preset)
    modules = {name: build_module(name, preset, seed=0, device="meta") for name in MODULES}
    cine = torch.empty(2, sizes.cine_frames, sizes.cine_pixels, sizes.cine_pixels, device="meta")
    posterior = modules["cmr_tokenizer"].encode(cine)
    assert posterior.mean_BZTHW.shape == posterior.log_variance_BZTHW.shape == (2, *sizes.latent_shape)
    assert modules["cmr_tokenizer"].decode(posterior.mean_BZTHW).shape == cine.shape
    assert modules["tokenizer_discriminator"](cine).dim() == 4

    tokens = patchify_latent(posterior.mean_BZTHW, sizes.generator.patch)
    assert tokens.shape == (2, sizes.latent_tokens, sizes.token_width)
    condition = torch.empty(2, sizes.projection, device="meta")
    visible = torch.empty(2, 5, dtype=torch.int64, device="meta")
    z = modules["cmr_generator"](tokens, visible, condition)
    assert z.shape == (2, sizes.latent_tokens, sizes.generator.width)
    time = torch.empty(2, sizes.latent_tokens, dtype=torch.int64, device="meta")
    assert modules["diffusion_head"](tokens, time, z).shape == (2, *tokens.shape[1:2], 2 * sizes.token_width)


def test_the_latents_and_tokens_of_the_table():
    found = {name: (p.latent_shape, p.latent_tokens, p.token_width) for name, p in PRESETS.items()}
    assert found == {
        "nano": ((4, 4, 8, 8), 32, 32),
        "small": ((8, 12, 8, 8), 64, 96),
        "paper": ((16, 25, 12, 12), 180, 320),
    }


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_has_batch_norm_or_running_statistics(name):
    module = build_module(name, "nano", seed=0, device="meta")
    assert not any(isinstance(part, nn.modules.batchnorm._NormBase) for part in module.modules())
    assert set(module.state_dict()) == {key for key, _ in module.named_parameters()}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(name):
    torch.manual_seed(1)
    first = build_module(name, "nano", seed=5).state_dict()
    torch.manual_seed(2)
    again = build_module(name, "nano", seed=5).state_dict()
    other = build_module(name, "nano", seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = not isinstance(MODULES[name](get_preset("nano")), Solved) and name != "align_scale"
    assert all(torch.equal(first[key], other[key]) for key in first) != drawn


def test_weights_begin_as_the_text_says():
    tokenizer = build_module("cmr_tokenizer", "nano", seed=0)
    for part in tokenizer.modules():
        if isinstance(part, nn.Conv3d):
            bound = 1 / math.sqrt(part.weight[0].numel())
            for values in (part.weight, part.bias):
                assert values.abs().max() <= bound
            assert part.weight.abs().max() > 0.8 * bound
    head = build_module("diffusion_head", "nano", seed=0)
    for layer in (head.out, head.modulation[-1], *(block.modulation[-1] for block in head.blocks)):
        assert not layer.weight.any() and not layer.bias.any()
    assert head.time_mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    discriminator = build_module("tokenizer_discriminator", "nano", seed=0)
    assert discriminator.layers[2].weight.std().item() == pytest.approx(0.02, rel=0.05)
    generator = build_module("cmr_generator", "nano", seed=0)
    for table in (generator.encoder_table, generator.decoder_table, generator.diffusion_table):
        assert table.std().item() == pytest.approx(0.02, rel=0.1)


@given(
    rows=st.integers(0, 2),
    channels=st.integers(1, 3),
    grid=st.tuples(*[st.integers(1, 3)] * 3),
    patch=st.tuples(*[st.integers(1, 3)] * 3),
)
@settings(max_examples=30, deadline=None)
def test_unpatchify_undoes_patchify_latent(rows, channels, grid, patch):
    latent = torch.randn(rows, channels, *(g * p for g, p in zip(grid, patch, strict=True)))
    cut = patchify_latent(latent, patch)
    assert cut.shape == (rows, math.prod(grid), channels * math.prod(patch))
    assert torch.equal(unpatchify_latent(cut, patch=patch, grid=grid), latent)


def test_a_latent_token_is_channel_time_row_column_and_tokens_run_time_row_column():
    latent = torch.arange(2 * 4 * 2 * 4).reshape(1, 2, 4, 2, 4)
    cut = patchify_latent(latent, (2, 1, 2))
    places = list(itertools.product(range(2), range(2), range(2)))
    for token, (t, h, w) in enumerate(places):
        block = latent[0, :, 2 * t : 2 * t + 2, h : h + 1, 2 * w : 2 * w + 2]
        assert torch.equal(cut[0, token], block.flatten())
    with pytest.raises(ValueError, match="multiple"):
        patchify_latent(latent, (3, 1, 1))


# -- Tokenizer -----------------------------------------------------------------------------------------


def test_a_latent_is_normalised_over_its_whole_sample():
    latent = 5.0 + 3.0 * normal(3, 4, 4, 8, 8)
    found = normalise_latent(latent).flatten(1)
    assert torch.allclose(found.mean(dim=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.var(dim=1, correction=0), torch.ones(3), atol=1e-4)
    assert torch.allclose(normalise_latent(7 * latent - 2), normalise_latent(latent), atol=1e-4)


def test_a_draw_is_the_normalised_mean_plus_noise():
    posterior = Posterior(mean_BZTHW=normal(2, 1, 2, 3, 3), log_variance_BZTHW=normal(2, 1, 2, 3, 3, seed=1))
    noise = normal(2, 1, 2, 3, 3, seed=2)
    values = posterior.mean_BZTHW + (0.5 * posterior.log_variance_BZTHW).exp() * noise
    found = draw_latent(posterior, noise_BZTHW=noise)
    assert torch.allclose(found, normalise_latent(values))
    assert torch.equal(found, draw_latent(posterior, generator=torch.Generator().manual_seed(2)))
    with pytest.raises(ValueError, match="either"):
        draw_latent(posterior)


def test_log_variances_are_clamped():
    tokenizer = small_tokenizer()
    with torch.no_grad():
        tokenizer.encoder[-1].bias[4:] = torch.tensor([1e3, -1e3, 0.0, 0.0])
    found = tokenizer.encode(normal(1, 8, 32, 32)).log_variance_BZTHW.detach()
    assert float(found[:, 0].min()) == 20.0 and float(found[:, 1].max()) == -30.0


def test_halving_looks_at_the_far_side_only():
    """The first latent column depends on the first pixels of a halving, never on padding before them."""
    halving = small_tokenizer().encoder[2]
    volume = normal(1, 8, 4, 6, 6)
    expected = nn.functional.conv3d(volume, halving.conv.weight, halving.conv.bias, stride=(1, 2, 2))
    assert torch.allclose(halving(volume)[..., :2, :2], expected, atol=1e-6)


def test_rows_of_the_tokenizer_do_not_influence_each_other():
    tokenizer, cine = small_tokenizer(), normal(3, 8, 32, 32)
    with torch.no_grad():
        alone, together = tokenizer.encode(cine[1:2]), tokenizer.encode(cine)
        assert torch.allclose(alone.mean_BZTHW[0], together.mean_BZTHW[1], atol=1e-5)
        latent = normalise_latent(together.mean_BZTHW)
        assert torch.allclose(tokenizer.decode(latent)[1], tokenizer.decode(latent[1:2])[0], atol=1e-5)


# -- Generator -----------------------------------------------------------------------------------------


def test_hidden_tokens_are_never_read():
    generator = awake(build_module("cmr_generator", "nano", seed=0)).eval()
    mask = draw_generator_mask(3, tokens=32, generator=torch.Generator().manual_seed(4))
    tokens, condition = normal(3, 32, 32), normal(3, 32)
    changed = tokens.scatter(1, mask.hidden[..., None].expand(-1, -1, 32), 100.0)
    first = generator(tokens, mask.visible, condition)
    assert torch.equal(first, generator(changed, mask.visible, condition))
    shown = tokens.scatter(1, mask.visible[..., None].expand(-1, -1, 32), 100.0)
    assert not torch.allclose(first, generator(shown, mask.visible, condition))


def test_order_of_the_visible_indices_does_not_matter():
    generator = awake(build_module("cmr_generator", "nano", seed=0)).eval()
    tokens, condition = normal(2, 32, 32), normal(2, 32)
    visible = torch.tensor([[1, 5, 9], [0, 30, 31]])
    first = generator(tokens, visible, condition)
    assert torch.allclose(first, generator(tokens, visible.flip(1), condition), atol=1e-5)


def test_a_dropped_condition_is_the_null_vector_and_only_in_its_row():
    generator = awake(build_module("cmr_generator", "nano", seed=0)).eval()
    tokens, condition, none = normal(2, 32, 32), normal(2, 32), torch.empty(2, 0, dtype=torch.int64)
    plain = generator(tokens, none, condition)
    dropped = generator(tokens, none, condition, torch.tensor([True, False]))
    assert torch.equal(dropped[1], plain[1]) and not torch.allclose(dropped[0], plain[0])
    both = generator(tokens, none, condition, torch.tensor([True, True]))
    assert torch.equal(both[0], both[1]), "nothing visible, no condition: every row is the same"


def test_some_decoded_tokens_equal_all_of_them():
    generator = awake(build_module("cmr_generator", "nano", seed=0)).eval()
    tokens, condition = normal(2, 32, 32), normal(2, 32)
    visible, wanted = torch.tensor([[1, 5, 9], [0, 30, 31]]), torch.tensor([[7, 2], [3, 29]])
    with torch.no_grad():
        encoded = generator.encode(
            gather_patches(tokens, visible), visible, condition_BD=generator.condition(condition)
        )
        some = generator.decode_some(generator.fill(encoded, visible), wanted)
        everything = generator(tokens, visible, condition)
    assert torch.allclose(some, gather_patches(everything, wanted), atol=1e-5)


def test_dropout_is_on_in_training_only_and_repeats_with_torch_seed():
    generator = build_module("cmr_generator", "nano", seed=0)
    tokens, condition, visible = normal(2, 32, 32), normal(2, 32), torch.tensor([[1, 5], [0, 30]])

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return generator(tokens, visible, condition)

    assert torch.equal(run(1), run(1)) and not torch.allclose(run(1), run(2))
    generator.eval()
    assert torch.equal(run(1), run(2))


def loss_of_one(module, inputs, parameters):
    """Mean square of one row's output."""
    output = functional_call(module, parameters, tuple(part[None] for part in inputs))
    return output.square().mean()


@pytest.mark.parametrize("name", ["cmr_generator", "diffusion_head", "cmr_tokenizer"])
def test_gradients_of_single_rows_by_vmap_equal_a_loop(name):
    tokens, visible, z = normal(3, 32, 32), torch.tensor([[1, 5], [0, 30], [7, 8]]), normal(3, 32, 64)
    inputs = {
        "cmr_generator": (tokens, visible, normal(3, 32), torch.tensor([True, False, True])),
        "diffusion_head": (tokens, torch.arange(96).reshape(3, 32), z),
        "cmr_tokenizer": (normal(3, 8, 32, 32), normal(3, 4, 4, 8, 8, seed=1)),
    }[name]
    module = small_tokenizer() if name == "cmr_tokenizer" else build_module(name, "nano", seed=0)
    awake(module).eval()
    parameters = {key: value.detach() for key, value in module.named_parameters()}

    def gradient(*row):
        return grad(lambda p: loss_of_one(module, row, p))(parameters)

    # The attention for CPUs has no batching rule; the plain one has.
    with sdpa_kernel(SDPBackend.MATH):
        together = vmap(gradient)(*inputs)
        for row in range(3):
            alone = gradient(*(part[row] for part in inputs))
            largest = max(float(value.abs().max()) for value in alone.values())
            for key in parameters:
                assert torch.allclose(together[key][row], alone[key], rtol=1e-3, atol=1e-5 * largest), key


def test_gradients_of_single_rows_exist_with_dropout():
    module = build_module("cmr_generator", "nano", seed=0).train()
    parameters = {key: value.detach() for key, value in module.named_parameters()}
    torch.manual_seed(0)
    found = vmap(
        lambda *row: grad(lambda p: loss_of_one(module, row, p))(parameters), randomness="different"
    )(normal(1, 32, 32).repeat(2, 1, 1), torch.tensor([[1, 5], [1, 5]]), normal(1, 32).repeat(2, 1))
    weight = found["encoder.0.attention.out.weight"]
    assert torch.isfinite(weight).all() and not torch.allclose(weight[0], weight[1])


# -- Masks ---------------------------------------------------------------------------------------------


def test_mask_rates_are_truncated_normal():
    generator = torch.Generator().manual_seed(0)
    rates = np.array([draw_mask_rate(generator) for _ in range(2000)])
    reference = stats.truncnorm((0.7 - 1.0) / 0.25, 0.0, loc=1.0, scale=0.25)
    assert rates.min() >= 0.7 and rates.max() <= 1.0
    assert stats.kstest(rates, reference.cdf).pvalue > 0.01
    assert reference.mean() == pytest.approx(0.867, abs=1e-3)


@pytest.mark.parametrize("tokens", [32, 64, 180])
def test_a_generator_mask_is_a_partition_with_one_count_for_all_rows(tokens):
    for seed in range(20):
        rate = draw_mask_rate(torch.Generator().manual_seed(seed))
        mask = draw_generator_mask(4, tokens=tokens, generator=torch.Generator().manual_seed(seed))
        assert mask.hidden.shape == (4, math.ceil(tokens * rate))
        both = torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values
        assert torch.equal(both, torch.arange(tokens).expand(4, -1))
        assert mask.visible.shape[1] < 2 or len({tuple(row.tolist()) for row in mask.visible}) > 1


def test_schedules_equal_the_text():
    assert new_tokens(180, 16) == (1, 3, 4, 6, 8, 9, 10, 12, 13, 14, 16, 16, 16, 17, 18, 17)
    assert new_tokens(32, 4) == (3, 7, 10, 12)


@given(tokens=st.integers(1, 300), data=st.data())
@settings(max_examples=60, deadline=None)
def test_schedules_sum_to_all_tokens_and_no_step_is_idle(tokens, data):
    steps = data.draw(st.integers(1, tokens))
    counts = new_tokens(tokens, steps)
    assert len(counts) == steps and sum(counts) == tokens and min(counts) >= 1
    with pytest.raises(ValueError, match="steps"):
        new_tokens(tokens, tokens + 1)


# -- Diffusion head ------------------------------------------------------------------------------------


def test_time_features_are_cosines_and_sines():
    found = time_features(torch.tensor([0, 7, 999]))
    assert found.shape == (3, 256)
    assert torch.equal(found[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    rate = 10_000.0 ** (-3 / 128)
    assert found[1, 3].item() == pytest.approx(math.cos(7 * rate), abs=1e-6)
    assert found[1, 131].item() == pytest.approx(math.sin(7 * rate), abs=1e-6)
    assert found[2, 129].item() == pytest.approx(math.sin(999 * 10_000.0 ** (-1 / 128)), abs=1e-6)


def test_the_head_equals_its_formula():
    head = awake(build_module("diffusion_head", "nano", seed=0))
    noisy, time, z = normal(2, 3, 32), torch.tensor([[0, 5, 99], [7, 7, 1]]), normal(2, 3, 64, seed=1)

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()

    with torch.no_grad():
        y = head.time_mlp(time_features(time)) + head.condition_layer(z)
        x = head.embed(noisy)
        for block in head.blocks:
            shift, scale, gate = block.modulation[1](y * torch.sigmoid(y)).chunk(3, -1)
            inner = norm(x) * block.norm.weight + block.norm.bias
            x = x + gate * block.mlp(inner * (1 + scale) + shift)
        shift, scale = head.modulation[1](y * torch.sigmoid(y)).chunk(2, -1)
        expected = head.out(norm(x) * (1 + scale) + shift)
        assert torch.allclose(head(noisy, time, z), expected, atol=1e-5)


def test_the_head_stays_finite_in_half_precision():
    """A stream of 1e5 overflows float16 and loses its small changes in bfloat16."""
    head = awake(build_module("diffusion_head", "nano", seed=0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        streams: list[torch.Tensor] = []
        for block in head.blocks:
            block.register_forward_hook(lambda _, __, output: streams.append(output))
        output = head(1e4 * normal(1, 2, 32), torch.zeros(1, 2, dtype=torch.int64), normal(1, 2, 64))
    assert output.dtype == torch.float32 and torch.isfinite(output).all()
    assert all(stream.dtype == torch.float32 for stream in streams)


def test_a_training_step_in_half_precision_is_finite():
    generator, head = (
        build_module("cmr_generator", "nano", seed=0),
        build_module("diffusion_head", "nano", seed=0),
    )
    awake(head)
    mask = draw_generator_mask(2, tokens=32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = generator(normal(2, 32, 32), mask.visible, normal(2, 32), torch.tensor([True, False]))
        output = head(normal(2, 32, 32), torch.zeros(2, 32, dtype=torch.int64), z)
    output.square().mean().backward()
    for parameter in (*generator.parameters(), *head.parameters()):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", ["cmr_generator", "cmr_tokenizer", "diffusion_head"])
def test_no_rows_give_no_rows(name):
    module = build_module(name, "nano", seed=0).eval()
    none = torch.zeros(0, 3, dtype=torch.int64)
    if name == "cmr_generator":
        assert module(torch.zeros(0, 32, 32), none, torch.zeros(0, 32)).shape == (0, 32, 64)
    elif name == "diffusion_head":
        assert module(torch.zeros(0, 3, 32), none, torch.zeros(0, 3, 64)).shape == (0, 3, 64)
    else:
        assert module.encode(torch.zeros(0, 8, 32, 32)).mean_BZTHW.shape == (0, 4, 4, 8, 8)


@pytest.mark.slow
def test_one_step_of_the_paper_preset():
    """Generator and head of the paper, forwards and backwards, one row: finite, and everything is reached."""
    sizes = get_preset("paper")
    generator: CmrGenerator = build_module("cmr_generator", "paper", seed=0)
    head = awake(build_module("diffusion_head", "paper", seed=0))
    mask = draw_generator_mask(1, tokens=180, generator=torch.Generator().manual_seed(0))
    tokens = normal(1, 180, 320)
    z = generator(tokens, mask.visible, normal(1, sizes.projection), torch.tensor([False]))
    loss = head(tokens, torch.zeros(1, 180, dtype=torch.int64), z).square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    without = [key for key, value in generator.named_parameters() if value.grad is None]
    assert without == ["null_condition"] or not without
