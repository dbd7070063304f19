"""ST-MEM encoders in their publisher's names give in our module what the equations give.

The reference below is written from SCIENCE section 2 in float64, straight from the published names and
without any part of the models.

Legend: B rows, L leads, T samples, P patches of a lead, N tokens, D width, H heads.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu

from cardionets_core.errors import CheckpointError
from cardionets_core.models import build_module, get_preset
from cardionets_core.models.published.st_mem import translate_st_mem
from cardionets_core.training.tensors import load_tensors

TOLERANCE = 1e-5


def published(preset, *, front=""):
    """A state dict of an encoder of a preset's sizes, random in every tensor."""
    sizes = get_preset(preset)
    width, depth = sizes.ecg_encoder.width, sizes.ecg_encoder.depth
    shapes = {
        "to_patch_embedding.1.weight": (75,),
        "to_patch_embedding.1.bias": (75,),
        "to_patch_embedding.2.weight": (width, 75),
        "to_patch_embedding.2.bias": (width,),
        "to_patch_embedding.3.weight": (width,),
        "to_patch_embedding.3.bias": (width,),
        "pos_embedding": (1, sizes.ecg_patches + 2, width),
        "sep_embedding": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    shapes |= {f"lead_embeddings.{lead}": (width,) for lead in range(12)}
    for index in range(depth):
        shapes |= {
            f"block{index}.attn.norm.weight": (width,),
            f"block{index}.attn.norm.bias": (width,),
            f"block{index}.attn.fn.to_qkv.weight": (3 * width, width),
            f"block{index}.attn.fn.to_qkv.bias": (3 * width,),
            f"block{index}.attn.fn.to_out.0.weight": (width, width),
            f"block{index}.attn.fn.to_out.0.bias": (width,),
            f"block{index}.ff.norm.weight": (width,),
            f"block{index}.ff.norm.bias": (width,),
            f"block{index}.ff.fn.net.0.weight": (4 * width, width),
            f"block{index}.ff.fn.net.0.bias": (4 * width,),
            f"block{index}.ff.fn.net.3.weight": (width, 4 * width),
            f"block{index}.ff.fn.net.3.bias": (width,),
        }
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            value = value / math.sqrt(shape[1])
        elif key.endswith("weight"):
            value = 1.0 + 0.2 * value
        else:
            value = 0.2 * value
        state[f"{front}{key}"] = value
    return state


def layer_norm(x, state, name):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(x, state, name, heads):
    """Each head on its own: softmax(q k' / sqrt(d)) v."""
    query, key, value = linear(x, state, f"{name}.to_qkv").split(x.shape[-1], dim=-1)
    size = x.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = (query[..., part] @ key[..., part].mT / math.sqrt(size)).softmax(-1)
        mixed.append(weights @ value[..., part])
    return linear(torch.cat(mixed, dim=-1), state, f"{name}.to_out.0")


def reference(state, ecg_BLT, *, depth, heads):
    """Feature of each window and its tokens, float64."""
    state = {key: value.double() for key, value in state.items()}
    batch, leads, samples = ecg_BLT.shape
    count = samples // 75
    position = state["pos_embedding"][0]
    rows = []
    for lead in range(leads):
        patches = ecg_BLT[:, lead].double().reshape(batch, count, 75)
        embedded = layer_norm(patches, state, "to_patch_embedding.1")
        embedded = linear(embedded, state, "to_patch_embedding.2")
        embedded = layer_norm(embedded, state, "to_patch_embedding.3") + position[1 : count + 1]
        left = (state["sep_embedding"] + position[0]).expand(batch, 1, -1)
        right = (state["sep_embedding"] + position[-1]).expand(batch, 1, -1)
        rows.append(torch.cat([left, embedded, right], dim=1) + state[f"lead_embeddings.{lead}"])
    x = torch.cat(rows, dim=1)
    for index in range(depth):
        name = f"block{index}"
        x = x + attention(layer_norm(x, state, f"{name}.attn.norm"), state, f"{name}.attn.fn", heads)
        hidden = gelu(linear(layer_norm(x, state, f"{name}.ff.norm"), state, f"{name}.ff.fn.net.0"))
        x = x + linear(hidden, state, f"{name}.ff.fn.net.3")
    tokens = x.reshape(batch, leads, count + 2, -1)[:, :, 1:-1]
    return layer_norm(tokens.mean(dim=(1, 2)), state, "norm"), tokens


def ours(translation, preset):
    module = build_module("ecg_encoder", preset, seed=1)
    load_tensors(module, translation.modules["ecg_encoder"])
    return module.eval()


@pytest.mark.parametrize(
    ("preset", "samples"),
    [
        ("nano", 750),
        ("nano", 300),
        ("small", 2250),
        pytest.param("paper", 2250, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_the_same_weights_give_what_the_equations_give(preset, samples):
    sizes = get_preset(preset)
    state = published(preset)
    translation = translate_st_mem(state, preset=preset)
    assert not translation.kept and not translation.skipped and not translation.notes
    encoder = ours(translation, preset)
    ecg = torch.randn(2, 12, samples, generator=torch.Generator().manual_seed(0))
    feature, tokens = reference(state, ecg, depth=sizes.ecg_encoder.depth, heads=sizes.ecg_encoder.heads)
    assert feature.std() > 0.3, "values of a size at which the tolerance means something"
    assert (encoder(ecg) - feature).abs().max() < TOLERANCE
    assert (encoder.tokens(ecg) - tokens).abs().max() < TOLERANCE * max(1.0, float(tokens.abs().max()))


def test_every_parameter_comes_from_exactly_its_tensors():
    state = published("nano")
    translation = translate_st_mem(state, preset="nano")
    parameters = {
        f"ecg_encoder.{name}" for name, _ in build_module("ecg_encoder", "nano", seed=0).named_parameters()
    }
    assert set(translation.imported) == parameters
    assert sorted(key for keys in translation.imported.values() for key in keys) == sorted(state)
    assert translation.imported["ecg_encoder.lead"] == tuple(f"lead_embeddings.{lead}" for lead in range(12))


def test_the_whole_autoencoder_gives_the_same_encoder_and_names_what_it_leaves():
    state = published("nano", front="encoder.")
    rest = {
        "to_patch_embedding.2.weight": state["encoder.to_patch_embedding.2.weight"],
        "to_decoder_embedding.weight": torch.zeros(32, 64),
        "mask_embedding": torch.zeros(1, 1, 32),
        "decoder_pos_embed": torch.zeros(1, 12, 32),
        "decoder_blocks.0.attn.fn.to_qkv.weight": torch.zeros(96, 32),
        "decoder_head.bias": torch.zeros(75),
        "encoder.head.bias": torch.zeros(2),
    }
    translation = translate_st_mem(
        {f"module.{key}": value for key, value in (state | rest).items()}, preset="nano"
    )
    alone = translate_st_mem(published("nano"), preset="nano")
    assert set(translation.skipped) == set(rest)
    for name, value in alone.modules["ecg_encoder"].items():
        assert np.array_equal(value, translation.modules["ecg_encoder"][name])


def test_a_task_head_is_left_out_by_name():
    state = published("nano") | {"head.weight": torch.zeros(5, 64), "head.bias": torch.zeros(5)}
    assert set(translate_st_mem(state, preset="nano").skipped) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("adapt", [False, True])
def test_every_fault_is_named_at_once(adapt):
    state = published("nano")
    del state["lead_embeddings.11"], state["block1.ff.norm.bias"]
    state["lead_embeddings.12"] = torch.zeros(64)
    state["lead_embeddings.3"] = torch.zeros(63)
    state["pos_embedding"] = torch.zeros(1, 32, 64)
    state["mask_embedding"] = torch.zeros(1, 1, 32)
    with pytest.raises(CheckpointError) as caught:
        translate_st_mem(state, preset="nano", adapt=adapt)
    told = str(caught.value)
    for fault in (
        "lead_embeddings.11 is absent",
        "block1.ff.norm.bias is absent",
        "lead_embeddings.12 is unknown",
        "lead_embeddings.3 has shape (63,), not (64,)",
        "pos_embedding has shape (1, 32, 64), not (1, 12, 64)",
        "mask_embedding is unknown",
    ):
        assert fault in told
    assert told.count(";") == 5


def test_nothing_at_all_is_refused():
    with pytest.raises(CheckpointError, match="pos_embedding is absent"):
        translate_st_mem({}, preset="nano")
