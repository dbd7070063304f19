"""Image encoders in timm's names give in our module what timm's own ViT gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.errors import CheckpointError, UnknownNameError
from cardionets_core.models import build_module, get_preset
from cardionets_core.models.published.mae_vit import (
    inflate_channels,
    resample_positions,
    translate_mae_vit,
)
from cardionets_core.training.tensors import load_tensors

TOLERANCE = 1e-5


def published(timm, preset, *, channels=None, pixels=None, width=None):
    """timm's ViT of a preset's sizes with random values in every tensor, biases and norms too."""
    sizes = get_preset(preset)
    encoder = sizes.cmr_encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = timm.vit(
            img_size=pixels or sizes.cine_pixels,
            patch_size=sizes.cine_patch,
            in_chans=channels or sizes.cine_frames,
            embed_dim=width or encoder.width,
            depth=encoder.depth,
            num_heads=encoder.heads,
            num_classes=0,
        ).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def ours(translation, preset):
    module = build_module("cmr_encoder", preset, seed=1)
    load_tensors(module, translation.modules["cmr_encoder"])
    return module.eval()


@pytest.mark.parametrize("preset", ["nano", "small", pytest.param("paper", marks=pytest.mark.slow)])
@torch.no_grad()
def test_the_same_weights_give_what_timm_gives(timm, preset):
    model = published(timm, preset)
    translation = translate_mae_vit(model.state_dict(), preset=preset)
    assert not translation.kept and not translation.skipped and not translation.notes
    encoder = ours(translation, preset)
    sizes = get_preset(preset)
    draw = torch.Generator().manual_seed(0)
    cine = torch.randn(2, sizes.cine_frames, sizes.cine_pixels, sizes.cine_pixels, generator=draw) * 0.5
    normed = model.forward_features(cine)
    model.norm = torch.nn.Identity()
    raw = model.forward_features(cine)
    assert raw.std() > 0.3, "values of a size at which the tolerance means something"
    assert (encoder.norm(encoder.tokens(cine)) - normed).abs().max() < TOLERANCE
    assert (encoder.tokens(cine) - raw).abs().max() < TOLERANCE * max(1.0, float(raw.abs().max()))
    assert (encoder(cine) - raw[:, 0]).abs().max() < TOLERANCE * max(1.0, float(raw.abs().max()))


def test_every_parameter_comes_from_exactly_one_tensor(timm):
    state = published(timm, "nano").state_dict()
    translation = translate_mae_vit(state, preset="nano")
    parameters = {
        f"cmr_encoder.{name}" for name, _ in build_module("cmr_encoder", "nano", seed=0).named_parameters()
    }
    assert set(translation.imported) == parameters
    assert sorted(key for keys in translation.imported.values() for key in keys) == sorted(state)
    for value in translation.modules["cmr_encoder"].values():
        assert value.dtype == np.float32 and value.flags.c_contiguous


def test_the_decoder_and_the_head_are_left_out_by_name(timm):
    state = published(timm, "nano").state_dict()
    extra = {
        "mask_token": torch.zeros(1, 1, 32),
        "decoder_pos_embed": torch.zeros(1, 17, 32),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(96, 32),
        "decoder_pred.bias": torch.zeros(9),
        "head.weight": torch.zeros(3, 64),
    }
    translation = translate_mae_vit(state | extra, preset="nano")
    assert set(translation.skipped) == set(extra)
    assert (
        "decoder" in translation.skipped["decoder_pred.bias"] and "head" in translation.skipped["head.weight"]
    )
    plain = translate_mae_vit(state, preset="nano")
    for name, value in plain.modules["cmr_encoder"].items():
        assert np.array_equal(value, translation.modules["cmr_encoder"][name])


def test_every_fault_is_named_at_once(timm):
    state = published(timm, "nano").state_dict()
    del state["blocks.1.mlp.fc2.bias"], state["cls_token"]
    state["blocks.0.ls1.gamma"] = torch.ones(64)
    state["norm.weight"] = torch.ones(63)
    state["pos_embed"] = torch.zeros(1, 16, 64)
    state["norm.bias"] = torch.full((64,), torch.nan)
    state["patch_embed.proj.bias"] = torch.ones(64, dtype=torch.int64)
    state["evil\x1b[2J"] = torch.ones(1)
    with pytest.raises(CheckpointError) as caught:
        translate_mae_vit(state, preset="nano")
    told = str(caught.value)
    for fault in (
        "blocks.1.mlp.fc2.bias is absent",
        "cls_token is absent",
        "blocks.0.ls1.gamma is unknown",
        "norm.weight has shape (63,), not (64,)",
        "pos_embed has shape (1, 16, 64), not (1, 17, 64)",
        "norm.bias is not finite",
        "patch_embed.proj.bias is int64",
    ):
        assert fault in told
    assert told.count(";") == 7 and "\x1b" not in told


def test_another_preset_is_refused_and_an_unknown_one_too(timm):
    state = published(timm, "nano").state_dict()
    with pytest.raises(CheckpointError, match=r"patch_embed.proj.weight has shape \(64, 8, 8, 8\)"):
        translate_mae_vit(state, preset="small")
    with pytest.raises(UnknownNameError):
        translate_mae_vit(state, preset="huge")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module._orig_mod."])
def test_what_trainers_write_in_front_is_taken_off(timm, prefix):
    state = published(timm, "nano").state_dict()
    wrapped = {f"{prefix}{key}": value for key, value in state.items()}
    translation = translate_mae_vit(wrapped, preset="nano")
    plain = translate_mae_vit(state, preset="nano")
    for name, value in plain.modules["cmr_encoder"].items():
        assert np.array_equal(value, translation.modules["cmr_encoder"][name])
    mixed = wrapped | {"norm.weight": state["norm.weight"]}
    with pytest.raises(CheckpointError, match="unknown"):
        translate_mae_vit(mixed, preset="nano")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_and_noted(timm, dtype):
    state = {key: value.to(dtype) for key, value in published(timm, "nano").state_dict().items()}
    translation = translate_mae_vit(state, preset="nano")
    assert translation.notes == (f"{len(state)} tensors of {str(dtype)[6:]} became float32",)
    assert np.array_equal(
        translation.modules["cmr_encoder"]["norm.weight"], state["norm.weight"].float().numpy()
    )
    if dtype == torch.float64:
        state["norm.weight"] = torch.full((64,), 1e300, dtype=dtype)
        with pytest.raises(CheckpointError, match="not finite as float32"):
            translate_mae_vit(state, preset="nano")


def test_arrays_serve_as_well_as_tensors(timm):
    state = published(timm, "nano").state_dict()
    arrays = {key: value.numpy().astype(">f4") for key, value in state.items()}
    from_arrays = translate_mae_vit(arrays, preset="nano").modules["cmr_encoder"]
    from_tensors = translate_mae_vit(state, preset="nano").modules["cmr_encoder"]
    assert all(np.array_equal(from_arrays[name], from_tensors[name]) for name in from_tensors)
    arrays["norm.bias"] = np.zeros(64, dtype=np.int32)
    arrays["norm.weight"] = np.array(["a"] * 64)
    with pytest.raises(CheckpointError, match=r"norm.weight is <U1.*norm.bias is int32"):
        translate_mae_vit(arrays, preset="nano")


@torch.no_grad()
def test_a_still_grey_cine_gives_what_the_grey_image_gave(timm):
    model = published(timm, "nano", channels=3)
    with pytest.raises(CheckpointError, match=r"\(64, 3, 8, 8\), not \(64, 8, 8, 8\)"):
        translate_mae_vit(model.state_dict(), preset="nano")
    translation = translate_mae_vit(model.state_dict(), preset="nano", adapt=True)
    assert len(translation.notes) == 1 and "3 channels" in translation.notes[0]
    # In float64, so that nothing but the rounding of the inflated kernel to float32 is left.
    encoder, model = ours(translation, "nano").double(), model.double()
    image = torch.randn(2, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    expected = model.forward_features(image.expand(-1, 3, -1, -1))
    got = encoder.norm(encoder.tokens(image.expand(-1, 8, -1, -1)))
    assert (got - expected).abs().max() < 1e-6


def test_channels_keep_their_sum():
    kernel = torch.randn(4, 3, 2, 2)
    inflated = inflate_channels(kernel, 50)
    assert torch.allclose(inflated.sum(dim=1), kernel.sum(dim=1), atol=1e-6)
    assert torch.allclose(inflated[:, 0], inflated[:, 49])
    assert torch.allclose(inflate_channels(torch.ones(1, 1, 1, 1), 1), torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize(("old", "new"), [(14, 6), (4, 14), (6, 6)])
def test_a_position_table_is_resampled_as_by_timm(timm, old, new):
    table = torch.randn(1 + old * old, 24, generator=torch.Generator().manual_seed(0))
    expected = timm.resample(table[None], new_size=[new, new])[0]
    got = resample_positions(table, new)
    assert got.shape == (1 + new * new, 24)
    assert torch.allclose(got, expected, atol=1e-5)
    assert torch.equal(got[0], table[0])


def test_a_constant_table_stays_constant_and_an_oblong_one_is_refused():
    assert torch.allclose(
        resample_positions(torch.full((26, 3), 0.7), 3), torch.full((10, 3), 0.7), atol=1e-6
    )
    with pytest.raises(ValueError, match="square"):
        resample_positions(torch.zeros(1 + 12, 3), 3)


def test_only_channels_and_grid_are_adapted(timm):
    state = published(timm, "nano", channels=3, pixels=64).state_dict()
    translation = translate_mae_vit(state, preset="nano", adapt=True)
    assert [note.split(":")[0] for note in translation.notes] == [
        "cmr_encoder.position",
        "cmr_encoder.embed.weight",
    ]
    assert "8 x 8 resampled to 4 x 4" in translation.notes[0]
    expected = resample_positions(state["pos_embed"][0], 4).numpy()
    assert np.array_equal(translation.modules["cmr_encoder"]["position"], expected)
    for spoilt in (
        {"pos_embed": torch.zeros(1, 13, 64)},
        {"pos_embed": torch.zeros(2, 17, 64)},
        {"pos_embed": torch.zeros(1, 1, 64)},
        {"pos_embed": torch.zeros(1, 0, 64)},
        {"patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)},
        {"patch_embed.proj.weight": torch.zeros(64, 0, 8, 8)},
        {"norm.weight": torch.zeros(32)},
    ):
        with pytest.raises(CheckpointError, match="has shape"):
            translate_mae_vit(state | spoilt, preset="nano", adapt=True)
