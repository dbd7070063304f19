"""Sizes, shapes and seeds of the models (SCIENCE sections 2 and 8.1, 8.4)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import UnknownNameError
from cardionets_core.models import MODULES, PRESETS, build_module, get_preset, input_shape
from cardionets_core.models.masking import draw_mask, gather_patches, scatter_tokens, visible_count
from cardionets_core.models.patches import patchify_cine, patchify_ecg, unpatchify_cine, unpatchify_ecg
from cardionets_core.models.positions import sincos_1d, sincos_2d

COUNTS = {
    "ecg_encoder": (106_838, 4_770_710, 85_150_614),
    "cmr_encoder": (134_080, 5_149_440, 94_916_352),
    "ecg_projection": (2_080, 32_896, 196_864),
    "cmr_projection": (2_080, 32_896, 196_864),
    "ecg_decoder": (17_355, 439_499, 3_375_947),
    "cmr_decoder": (31_776, 627_968, 32_180_736),
    "phenotype_head": (4_002, 46_482, 240_338),
    "screening_head": (325 + 195, 1_285 + 771, 3_845 + 2_307),
    "cmr_tokenizer": (696_213, 2_842_297, 277_734_097),
    "cmr_generator": (220_160, 9_725_952, 172_253_184),
    "diffusion_head": (81_216, 1_391_552, 20_934_272),
    # SCIENCE counts one logit; the screening task reads one for each of five diseases.
    "fusion_head": (50_177 + 4 * 65, 1_580_289 + 4 * 257, 28_353_793 + 4 * 769),
    "tokenizer_discriminator": (67_417, 265_905, 4_209_345),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_parameter_counts_equal_the_table(name):
    counts = tuple(
        sum(p.numel() for p in build_module(name, preset, seed=0, device="meta").parameters())
        for preset in ("nano", "small", "paper")
    )
    assert counts == COUNTS[name]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_shapes_on_the_meta_device(preset):
    sizes = get_preset(preset)
    modules = {name: build_module(name, preset, seed=0, device="meta") for name in MODULES}
    samples, frames, pixels = input_shape(preset)[:3]
    ecg = torch.empty(2, 12, samples, device="meta")
    cine = torch.empty(2, frames, pixels, pixels, device="meta")
    n, p, d = sizes.ecg_patches, sizes.cine_side**2, sizes.ecg_encoder.width
    encoder, tower = modules["ecg_encoder"], modules["cmr_encoder"]

    assert encoder(ecg).shape == (2, d)
    assert encoder.tokens(ecg).shape == (2, 12, n, d)
    visible = torch.empty(2, 12, 3, dtype=torch.int64, device="meta")
    tokens = encoder.visible_tokens(ecg, visible)
    assert tokens.shape == (2, 12, 5, d)
    assert modules["ecg_decoder"](tokens, visible).shape == (2, 12, n, 75)

    assert tower(cine).shape == (2, d)
    assert tower.tokens(cine).shape == (2, 1 + p, d)
    visible = torch.empty(2, 4, dtype=torch.int64, device="meta")
    tokens = tower.visible_tokens(cine, visible)
    assert tokens.shape == (2, 5, d)
    assert modules["cmr_decoder"](tokens, visible).shape == (2, p, sizes.cine_patch**2 * frames)

    assert modules["ecg_projection"](encoder(ecg)).shape == (2, sizes.projection)
    assert modules["phenotype_probe"](encoder(ecg)).shape == (2, 82)


def test_token_counts_of_the_paper():
    paper = get_preset("paper")
    assert 12 * (paper.ecg_patches + 2) == 384
    assert 1 + paper.cine_side**2 == 37
    assert visible_count(30, 0.75) == 7
    assert visible_count(36, 0.75) == 9


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UnknownNameError, match="nano, small, paper"):
        input_shape("huge")
    with pytest.raises(UnknownNameError, match="ecg_encoder"):
        build_module("heart", "nano", seed=0)


def test_weights_follow_from_seed_and_name_only():
    torch.manual_seed(1)
    first = build_module("ecg_encoder", "nano", seed=5)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again = build_module("ecg_encoder", "nano", seed=5)
    other = build_module("ecg_encoder", "nano", seed=6)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "building must not touch torch's global generator"
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.lead, other.lead)
    projections = [build_module(f"{kind}_projection", "nano", seed=5) for kind in ("ecg", "cmr")]
    assert not torch.equal(projections[0].weight, projections[1].weight)


def test_fixed_tables_are_no_parameters_and_are_not_saved():
    decoder = build_module("cmr_decoder", "nano", seed=0)
    assert not any("table" in name for name, _ in decoder.named_parameters())
    assert not any("table" in name for name in decoder.state_dict())
    assert [name for name, _ in decoder.named_buffers()] == ["table.table"]
    encoder = build_module("ecg_encoder", "nano", seed=0)
    assert torch.equal(encoder.position[1:-1], sincos_1d(10, 64))
    assert not encoder.position[[0, -1]].any()
    tower = build_module("cmr_encoder", "nano", seed=0)
    assert torch.equal(tower.position[1:], sincos_2d(4, 64))
    assert not tower.position[0].any()


@given(rows=st.integers(0, 3), leads=st.integers(1, 12), patches=st.integers(1, 6), size=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_unpatchify_undoes_patchify_ecg(rows, leads, patches, size):
    ecg = torch.randn(rows, leads, patches * size)
    cut = patchify_ecg(ecg, size)
    assert cut.shape == (rows, leads, patches, size)
    assert torch.equal(unpatchify_ecg(cut), ecg)


@given(rows=st.integers(0, 3), frames=st.integers(1, 5), side=st.integers(1, 4), size=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_unpatchify_undoes_patchify_cine(rows, frames, side, size):
    cine = torch.randn(rows, frames, side * size, side * size)
    cut = patchify_cine(cine, size)
    assert cut.shape == (rows, side * side, size * size * frames)
    assert torch.equal(unpatchify_cine(cut, pixels=size, frames=frames), cine)


def test_a_cine_patch_is_a_square_through_all_frames():
    cine = torch.arange(2 * 4 * 4).reshape(1, 2, 4, 4)
    expected = cine[0, :, 0:2, 2:4].permute(1, 2, 0).flatten()
    assert torch.equal(patchify_cine(cine, 2)[0, 1], expected)


def test_lengths_that_are_no_multiple_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        patchify_ecg(torch.zeros(1, 12, 76), 75)
    with pytest.raises(ValueError, match="multiple"):
        patchify_cine(torch.zeros(1, 2, 9, 8), 8)


@given(leading=st.tuples(st.integers(0, 4), st.integers(1, 3)), patches=st.integers(2, 12), data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_mask_is_a_partition(leading, patches, data):
    visible = data.draw(st.integers(1, patches - 1))
    mask = draw_mask(leading, patches=patches, visible=visible, generator=torch.Generator().manual_seed(0))
    assert mask.visible.shape == (*leading, visible)
    both = torch.cat([mask.visible, mask.hidden], dim=-1).sort(dim=-1).values
    assert torch.equal(both, torch.arange(patches).expand(*leading, patches))


def test_masks_differ_between_leads_and_repeat_with_the_seed():
    first, again = (
        draw_mask((2, 12), patches=30, visible=7, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(first.visible, again.visible)
    assert len({tuple(lead.tolist()) for lead in first.visible.flatten(0, 1)}) == 24


def test_scatter_puts_gathered_tokens_back():
    tokens = torch.randn(2, 3, 6, 4)
    mask = draw_mask((2, 3), patches=6, visible=2, generator=torch.Generator().manual_seed(0))
    blank = torch.full((4,), 9.0)
    full = scatter_tokens(gather_patches(tokens, mask.visible), mask.visible, blank=blank, patches=6)
    assert torch.equal(gather_patches(full, mask.visible), gather_patches(tokens, mask.visible))
    assert (gather_patches(full, mask.hidden) == 9.0).all()


def test_hidden_patches_are_never_read():
    encoder = build_module("ecg_encoder", "nano", seed=0)
    mask = draw_mask((2, 12), patches=10, visible=2, generator=torch.Generator().manual_seed(0))
    ecg = torch.randn(2, 12, 750)
    changed = patchify_ecg(ecg, 75).scatter(2, mask.hidden[..., None].expand(-1, -1, -1, 75), 100.0)
    before = encoder.visible_tokens(ecg, mask.visible)
    assert torch.equal(before, encoder.visible_tokens(unpatchify_ecg(changed), mask.visible))


def test_all_patches_visible_equals_the_plain_tokens():
    encoder = build_module("ecg_encoder", "nano", seed=0)
    ecg = torch.randn(2, 12, 750)
    everything = torch.arange(10).expand(2, 12, 10)
    seen = encoder.visible_tokens(ecg, everything)[:, :, 1:-1]
    assert torch.allclose(seen, encoder.norm(encoder.tokens(ecg)), atol=1e-5)


def test_shorter_windows_are_legal_and_longer_ones_are_not():
    encoder = build_module("ecg_encoder", "nano", seed=0)
    assert encoder(torch.randn(2, 12, 150)).shape == (2, 64)
    with pytest.raises(ValueError, match="patches"):
        encoder(torch.randn(2, 12, 825))


def test_no_rows_give_no_features():
    assert build_module("ecg_encoder", "nano", seed=0)(torch.zeros(0, 12, 750)).shape == (0, 64)
    assert build_module("cmr_encoder", "nano", seed=0)(torch.zeros(0, 8, 32, 32)).shape == (0, 64)


def test_rows_do_not_influence_each_other():
    encoder = build_module("ecg_encoder", "nano", seed=0)
    ecg = torch.randn(3, 12, 750)
    assert torch.allclose(encoder(ecg)[1], encoder(ecg[1:2])[0], atol=1e-5)
