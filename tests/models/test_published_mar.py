"""MAR generators and diffusion heads in their publisher's names give in our modules what the equations give.

The reference below is written from SCIENCE section 2 in float64, straight from the published names and
without any part of the models. It looks at one row at a time, with a boolean mask.

Legend: L tokens, K values of a token, U buffer tokens, D width, P width of the ECG embedding.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, silu

from cardionets_core.errors import CheckpointError
from cardionets_core.models import build_module, get_preset
from cardionets_core.models.published.mar import translate_mar
from cardionets_core.training.tensors import export_tensors, load_tensors

TOLERANCE = 1e-5


def published(preset, *, by_class=False, token=None, grid=None, head_depth=None):
    """A state dict of a preset's sizes, random in every tensor; token, grid and head may have others."""
    sizes = get_preset(preset)
    width, buffer = sizes.generator.width, sizes.generator.buffer
    count, values = grid or sizes.latent_tokens, token or sizes.token_width
    own = sizes.diffusion.width
    shapes = {
        "fake_latent": (1, width),
        "mask_token": (1, 1, width),
        "encoder_pos_embed_learned": (1, buffer + count, width),
        "decoder_pos_embed_learned": (1, buffer + count, width),
        "diffusion_pos_embed_learned": (1, count, width),
    }
    layers = {"z_proj": (width, values), "decoder_embed": (width, width)}
    norms = dict.fromkeys(("z_proj_ln", "encoder_norm", "decoder_norm"), width)
    if by_class:
        shapes["class_emb.weight"] = (10, width)
    else:
        layers |= {"ecg_emb.0": (width, sizes.projection), "ecg_emb.1": (width, width)}
    for side in ("encoder", "decoder"):
        for index in range(sizes.generator.depth):
            name = f"{side}_blocks.{index}"
            norms |= {f"{name}.norm1": width, f"{name}.norm2": width}
            layers |= {
                f"{name}.attn.qkv": (3 * width, width),
                f"{name}.attn.proj": (width, width),
                f"{name}.mlp.fc1": (4 * width, width),
                f"{name}.mlp.fc2": (width, 4 * width),
            }
    net = "diffloss.net"
    layers |= {
        f"{net}.time_embed.mlp.0": (own, 256),
        f"{net}.time_embed.mlp.2": (own, own),
        f"{net}.cond_embed": (own, width),
        f"{net}.input_proj": (own, values),
        f"{net}.final_layer.linear": (2 * values, own),
        f"{net}.final_layer.adaLN_modulation.1": (2 * own, own),
    }
    for index in range(head_depth or sizes.diffusion.depth):
        name = f"{net}.res_blocks.{index}"
        norms[f"{name}.in_ln"] = own
        layers |= {
            f"{name}.mlp.0": (own, own),
            f"{name}.mlp.2": (own, own),
            f"{name}.adaLN_modulation.1": (3 * own, own),
        }
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    state = {name: 0.3 * draw(*shape) for name, shape in shapes.items()}
    for name, shape in layers.items():
        state[f"{name}.weight"] = draw(*shape) / math.sqrt(shape[1])
        state[f"{name}.bias"] = 0.2 * draw(shape[0])
    for name, size in norms.items():
        state[f"{name}.weight"] = 1.0 + 0.2 * draw(size)
        state[f"{name}.bias"] = 0.2 * draw(size)
    return state


def normed(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def layer_norm(x, state, name):
    return normed(x) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block(x, state, name, heads):
    query, key, value = linear(layer_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv").chunk(
        3, dim=-1
    )
    size = x.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = (query[:, part] @ key[:, part].T / math.sqrt(size)).softmax(-1)
        mixed.append(weights @ value[:, part])
    x = x + linear(torch.cat(mixed, dim=-1), state, f"{name}.attn.proj")
    return x + linear(
        gelu(linear(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")),
        state,
        f"{name}.mlp.fc2",
    )


def reference_z(state, tokens_LK, hidden_L, *, condition_P, sizes):
    """z of one row; ``condition_P`` None is the null condition."""
    state = {key: value.double() for key, value in state.items()}
    buffer, heads, depth = sizes.buffer, sizes.heads, sizes.depth
    if condition_P is None:
        condition = state["fake_latent"][0]
    else:
        condition = linear(linear(condition_P.double(), state, "ecg_emb.0"), state, "ecg_emb.1")
    shown_S = torch.cat([torch.ones(buffer, dtype=torch.bool), ~hidden_L])
    x = torch.cat([condition.expand(buffer, -1), linear(tokens_LK.double(), state, "z_proj")])
    x = layer_norm(x + state["encoder_pos_embed_learned"][0], state, "z_proj_ln")[shown_S]
    for index in range(depth):
        x = block(x, state, f"encoder_blocks.{index}", heads)
    bridged = linear(layer_norm(x, state, "encoder_norm"), state, "decoder_embed")
    full = state["mask_token"][0, 0].expand(len(shown_S), -1).clone()
    full[shown_S] = bridged
    x = full + state["decoder_pos_embed_learned"][0]
    for index in range(depth):
        x = block(x, state, f"decoder_blocks.{index}", heads)
    return layer_norm(x, state, "decoder_norm")[buffer:] + state["diffusion_pos_embed_learned"][0]


def reference_head(state, noisy, time, z):
    """Noise and variance logits of tokens ``[N, K]`` at times ``[N]`` given z ``[N, D]``."""
    net = "diffloss.net"
    state = {key: value.double() for key, value in state.items()}
    rates = torch.tensor([10_000.0 ** (-i / 128) for i in range(128)], dtype=torch.float64)
    angles = time.double()[:, None] * rates
    feature = torch.cat([angles.cos(), angles.sin()], dim=-1)
    hidden = silu(linear(feature, state, f"{net}.time_embed.mlp.0"))
    y = linear(hidden, state, f"{net}.time_embed.mlp.2") + linear(z.double(), state, f"{net}.cond_embed")
    x = linear(noisy.double(), state, f"{net}.input_proj")
    index = 0
    while f"{net}.res_blocks.{index}.in_ln.weight" in state:
        name = f"{net}.res_blocks.{index}"
        shift, scale, gate = linear(silu(y), state, f"{name}.adaLN_modulation.1").chunk(3, dim=-1)
        inner = layer_norm(x, state, f"{name}.in_ln") * (1 + scale) + shift
        x = x + gate * linear(silu(linear(inner, state, f"{name}.mlp.0")), state, f"{name}.mlp.2")
        index += 1
    shift, scale = linear(silu(y), state, f"{net}.final_layer.adaLN_modulation.1").chunk(2, dim=-1)
    return linear(normed(x) * (1 + scale) + shift, state, f"{net}.final_layer.linear")


def ours(translation, preset, name):
    module = build_module(name, preset, seed=1)
    load_tensors(module, export_tensors(module) | translation.modules[name])
    return module.eval()


def hidden_of(visible, count):
    mask = torch.ones(count, dtype=torch.bool)
    mask[visible] = False
    return mask


@pytest.mark.parametrize(
    ("preset", "share"),
    [
        ("nano", 0.0),
        ("nano", 0.4),
        ("nano", 0.9),
        ("small", 0.4),
        pytest.param("paper", 0.4, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_the_generator_gives_what_the_equations_give(preset, share):
    sizes = get_preset(preset)
    state = published(preset)
    translation = translate_mar(state, preset=preset)
    assert not translation.kept and not translation.skipped and not translation.notes
    generator = ours(translation, preset, "cmr_generator")
    draw = torch.Generator().manual_seed(0)
    count = sizes.latent_tokens
    tokens = torch.randn(2, count, sizes.token_width, generator=draw)
    condition = torch.randn(2, sizes.projection, generator=draw)
    visible = torch.rand(2, count, generator=draw).argsort(dim=1)[:, : int(share * count)]
    dropped = torch.tensor([False, True])
    got = generator(tokens, visible, condition, dropped)
    for row in range(2):
        expected = reference_z(
            state,
            tokens[row],
            hidden_of(visible[row], count),
            condition_P=None if dropped[row] else condition[row],
            sizes=sizes.generator,
        )
        assert expected.std() > 0.3, "values of a size at which the tolerance means something"
        assert (got[row] - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("preset", ["nano", "small", pytest.param("paper", marks=pytest.mark.slow)])
@torch.no_grad()
def test_the_diffusion_head_gives_what_the_equations_give(preset):
    sizes = get_preset(preset)
    state = published(preset)
    head = ours(translate_mar(state, preset=preset), preset, "diffusion_head")
    draw = torch.Generator().manual_seed(0)
    noisy = torch.randn(4, 3, sizes.token_width, generator=draw)
    z = torch.randn(4, 3, sizes.generator.width, generator=draw)
    time = torch.randint(0, sizes.diffusion.steps, (4, 3), generator=draw)
    time[0, 0] = sizes.diffusion.steps - 1
    expected = reference_head(state, noisy.flatten(0, 1), time.flatten(), z.flatten(0, 1))
    got = head(noisy, time, z).flatten(0, 1)
    assert expected.std() > 0.3
    assert (got - expected).abs().max() < TOLERANCE


def test_every_parameter_comes_from_exactly_one_tensor():
    state = published("nano")
    translation = translate_mar(state, preset="nano")
    parameters = {
        f"{module}.{name}"
        for module in ("cmr_generator", "diffusion_head")
        for name, _ in build_module(module, "nano", seed=0).named_parameters()
    }
    assert set(translation.imported) == parameters
    assert sorted(key for keys in translation.imported.values() for key in keys) == sorted(state)


@torch.no_grad()
def test_a_generator_by_class_keeps_our_condition_path_and_gives_its_own_null_condition():
    sizes = get_preset("nano")
    state = published("nano", by_class=True)
    translation = translate_mar(state, preset="nano")
    assert set(translation.skipped) == {"class_emb.weight"}
    kept = {f"cmr_generator.condition_path.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")}
    assert set(translation.kept) == kept
    assert not kept & {f"cmr_generator.{name}" for name in translation.modules["cmr_generator"]}
    generator = ours(translation, "nano", "cmr_generator")
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, sizes.latent_tokens, sizes.token_width, generator=draw)
    visible = torch.tensor([[3, 1, 17]])
    condition = torch.randn(1, sizes.projection, generator=draw)
    got = generator(tokens, visible, condition, torch.tensor([True]))
    hidden = hidden_of(visible[0], sizes.latent_tokens)
    expected = reference_z(state, tokens[0], hidden, condition_P=None, sizes=sizes.generator)
    assert (got[0] - expected).abs().max() < TOLERANCE


def test_unused_parts_of_the_publisher_are_left_out_by_name():
    rest = {
        "rep_embedder.weight": torch.zeros(64, 64),
        "fake_rep_latent": torch.zeros(1, 64),
        "decoder_pred.bias": torch.zeros(9),
    }
    translation = translate_mar(published("nano") | rest, preset="nano")
    assert set(translation.skipped) == set(rest) and not translation.kept


def test_tokens_of_another_size_are_refused_and_kept_when_adapted():
    state = published("nano", by_class=True, token=16, grid=256, head_depth=5)
    with pytest.raises(CheckpointError) as caught:
        translate_mar(state, preset="nano")
    told = str(caught.value)
    for fault in (
        "z_proj.weight has shape (64, 16), not (64, 32)",
        "encoder_pos_embed_learned has shape (1, 264, 64), not (1, 40, 64)",
        "diffusion_pos_embed_learned has shape (1, 256, 64), not (1, 32, 64)",
        "diffloss.net.final_layer.linear.bias has shape (32,), not (64,)",
        "diffloss.net.res_blocks.4.in_ln.weight is unknown",
    ):
        assert fault in told
    translation = translate_mar(state, preset="nano", adapt=True)
    sized = {
        "cmr_generator.embed.weight": "z_proj.weight",
        "cmr_generator.encoder_table": "encoder_pos_embed_learned",
        "cmr_generator.decoder_table": "decoder_pos_embed_learned",
        "cmr_generator.diffusion_table": "diffusion_pos_embed_learned",
        "diffusion_head.embed.weight": "diffloss.net.input_proj.weight",
        "diffusion_head.out.weight": "diffloss.net.final_layer.linear.weight",
        "diffusion_head.out.bias": "diffloss.net.final_layer.linear.bias",
    }
    assert {name for name in translation.kept if "condition_path" not in name} == set(sized)
    beyond = {key for key in state if "res_blocks" in key and int(key.split(".")[3]) >= 2}
    assert set(translation.skipped) == set(sized.values()) | beyond | {"class_emb.weight"}
    assert (
        translation.kept["cmr_generator.embed.weight"]
        == "tokens of another size: published (64, 16), here (64, 32)"
    )
    assert not translation.notes
    used = {key for keys in translation.imported.values() for key in keys}
    assert used | set(translation.skipped) == set(state) and not used & set(translation.skipped)
    for name, (key,) in translation.imported.items():
        module, _, parameter = name.partition(".")
        assert np.array_equal(translation.modules[module][parameter].ravel(), state[key].numpy().ravel())


def test_another_width_or_depth_is_refused_even_when_adapted():
    state = published("nano")
    state["decoder_embed.weight"] = torch.zeros(64, 32)
    state["encoder_blocks.2.norm1.weight"] = torch.zeros(64)
    del state["diffloss.net.res_blocks.1.mlp.0.bias"]
    with pytest.raises(CheckpointError) as caught:
        translate_mar(state, preset="nano", adapt=True)
    for fault in (
        "(64, 32), not (64, 64)",
        "encoder_blocks.2.norm1.weight is unknown",
        "mlp.0.bias is absent",
    ):
        assert fault in str(caught.value)
