"""The earlier generation's ECG encoder and its decoder: sizes, order of tokens, covariates, single rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from cardionets_core.models import MODULES, build_module
from cardionets_core.models.ecg_vit import EcgVit
from cardionets_core.models.ecg_vit_decoder import EcgVitDecoder
from cardionets_core.models.masking import draw_mask, gather_patches
from cardionets_core.models.positions import sincos_1d, sincos_2d, sincos_grid
from cardionets_core.models.transformer import DrawsOwnWeights
from cardionets_core.privacy.layers import is_covered
from cardionets_core.privacy.per_sample import ClippedSums, choose_mode

LEADS, PATCH, PATCHES, WIDTH = 12, 20, 5, 32
ALL = LEADS * PATCHES


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module: nn.Module) -> Any:
    """The module with noise on all weights, so that no layer is zero."""
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return module


def encoder(*, depth: int = 2, covariates: int = 0, seed: int = 0) -> EcgVit:
    """A small encoder as ``build_module`` leaves it."""
    made = EcgVit(
        leads=LEADS,
        patch=PATCH,
        patches=PATCHES,
        width=WIDTH,
        depth=depth,
        heads=4,
        covariates=covariates,
    )
    made.draw_weights(torch.Generator().manual_seed(seed))
    return made


def decoder(*, depth: int = 1) -> EcgVitDecoder:
    """A small decoder whose weights are all awake."""
    torch.manual_seed(0)
    return awake(
        EcgVitDecoder(
            leads=LEADS, patch=PATCH, patches=PATCHES, encoder_width=WIDTH, width=16, depth=depth, heads=2
        )
    )


def ecg(rows: int = 2, *, patches: int = PATCHES, seed: int = 0) -> torch.Tensor:
    return normal(rows, LEADS, patches * PATCH, seed=seed)


def mask_of(rows: int = 2, *, visible: int = 15) -> Any:
    return draw_mask((rows,), patches=ALL, visible=visible, generator=torch.Generator().manual_seed(4))


# -- Sizes and weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "depth", "heads", "patches"),
    [(256, 3, 4, 10), (384, 3, 6, 50), (512, 4, 8, 50), (768, 12, 12, 50), (1024, 24, 16, 50)],
)
def test_parameter_counts_and_shapes_on_the_meta_device(width, depth, heads, patches):
    with torch.device("meta"):
        made = EcgVit(leads=12, patch=100, patches=patches, width=width, depth=depth, heads=heads)
        back = EcgVitDecoder(
            leads=12, patch=100, patches=patches, encoder_width=width, width=64, depth=1, heads=2
        )
        windows = torch.empty(2, 12, 100 * patches)
        visible = torch.empty(2, 7, dtype=torch.int64)
    block = 12 * width**2 + 13 * width  # qkv, out, two of the MLP, their biases; two norms
    outside = 101 * width + width + (1 + 12 * patches) * width + 2 * width
    count = sum(parameter.numel() for parameter in made.parameters())
    assert count == depth * block + outside
    if depth == 24:
        assert count == pytest.approx(303e6, rel=0.01)
    assert (made.patch, made.patches) == (100, patches)
    assert made(windows).shape == (2, width)
    assert made.tokens(windows).shape == (2, 12, patches, width)
    assert made.patches_of(windows).shape == (2, 12 * patches, 100)
    tokens = made.visible_tokens(windows, visible)
    assert tokens.shape == (2, 8, width)
    assert back(tokens, visible).shape == (2, 12 * patches, 100)


def test_the_registry_can_build_it_on_the_meta_device_and_by_seed(monkeypatch):
    def make(preset):
        return EcgVit(leads=12, patch=75, patches=10, width=64, depth=1, heads=4, covariates=3)

    monkeypatch.setitem(MODULES, "ecg_vit", make)
    shapes = {name: p.shape for name, p in make(None).named_parameters()}
    empty = build_module("ecg_vit", "nano", seed=0, device="meta")
    assert {name: p.shape for name, p in empty.named_parameters()} == shapes
    state = torch.get_rng_state()
    one, again, other = (build_module("ecg_vit", "nano", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "building must not touch torch's global generator"
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["cls"], other["cls"]) and one["cls"].any()
    assert not torch.equal(one["embed.weight"], other["embed.weight"])
    assert torch.equal(one["position"], other["position"])
    assert torch.equal(one["position"][1:], sincos_grid(12, 10, 64)) and not one["position"][0].any()
    assert all(not value.any() for name, value in one.items() if name.startswith("film."))
    assert isinstance(make(None), DrawsOwnWeights)


def test_the_table_of_a_grid_is_that_of_its_row_beside_that_of_its_column():
    table = sincos_grid(3, 5, 16).unflatten(0, (3, 5))
    assert table.dtype == torch.float32
    assert torch.equal(table[:, :, :8], sincos_1d(3, 8)[:, None].expand(3, 5, 8))
    assert torch.equal(table[:, :, 8:], sincos_1d(5, 8)[None].expand(3, 5, 8))
    assert torch.equal(sincos_grid(4, 4, 16), sincos_2d(4, 16))


def test_without_covariates_there_are_no_weights_for_them():
    assert not any("film" in name for name, _ in encoder().named_parameters())
    with_maps = dict(encoder(covariates=3).named_parameters())
    assert with_maps["film.gamma.weight"].shape == with_maps["film.beta.weight"].shape == (WIDTH, 3)


# -- What the encoder gives ----------------------------------------------------------------------------


@torch.no_grad()
def test_a_patch_is_embedded_at_its_lead_and_place():
    made = awake(encoder(depth=0))
    window = ecg(1)
    before = made.tokens(window)
    image = conv2d(window[:, None], made.embed.weight[:, None, None], made.embed.bias, stride=(1, PATCH))
    place = made.position[1:].unflatten(0, (LEADS, PATCHES))
    assert torch.allclose(before, image.permute(0, 2, 3, 1) + place, atol=1e-5)
    for lead, patch in ((0, 0), (3, 2), (11, 4)):
        changed = window.clone()
        changed[0, lead, patch * PATCH : (patch + 1) * PATCH] += 1.0
        moved = (made.tokens(changed) - before).abs().amax(dim=-1)[0] > 0
        assert moved.nonzero().tolist() == [[lead, patch]]


@torch.no_grad()
def test_the_feature_is_the_normalised_cls_and_every_patch_reaches_it():
    made = awake(encoder())
    window = ecg(1)
    everything = torch.arange(ALL)[None]
    seen = made.visible_tokens(window, everything)
    assert torch.allclose(seen[:, 0], made(window), atol=1e-5)
    assert torch.allclose(seen[:, 1:], made.norm(made.tokens(window)).flatten(1, 2), atol=1e-5)
    for lead in range(LEADS):
        changed = window.clone()
        changed[0, lead, -PATCH:] += 1.0
        assert (made(changed) - made(window)).abs().max() > 1e-4


@torch.no_grad()
def test_hidden_patches_are_never_read():
    made, mask = awake(encoder()), mask_of()
    patches = made.patches_of(ecg())
    nothing = torch.full_like(patches, float("nan"))
    index = mask.visible[..., None].expand(-1, -1, PATCH)
    only_seen = nothing.scatter(1, index, gather_patches(patches, mask.visible))
    window = only_seen.reshape(2, LEADS, PATCHES * PATCH)
    assert window.isnan().any()
    assert torch.equal(made.visible_tokens(ecg(), mask.visible), made.visible_tokens(window, mask.visible))


@torch.no_grad()
def test_the_order_of_the_indices_is_that_of_the_tokens():
    made, mask = awake(encoder()), mask_of()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    plain = made.visible_tokens(ecg(), mask.visible)
    other = made.visible_tokens(ecg(), mask.visible[:, order])
    assert torch.allclose(plain[:, 0], other[:, 0], atol=1e-5)
    assert torch.allclose(plain[:, 1:][:, order], other[:, 1:], atol=1e-5)


@torch.no_grad()
def test_a_short_window_takes_the_first_columns_of_each_lead():
    made, window = awake(encoder()), ecg(patches=2)
    full = torch.cat([window, ecg(patches=3, seed=1)], dim=2)
    columns = torch.arange(ALL).unflatten(0, (LEADS, PATCHES))[:, :2].flatten().expand(2, -1)
    expected = made.visible_tokens(full, columns)
    assert torch.allclose(made(window), expected[:, 0], atol=1e-5)
    tokens = made.norm(made.tokens(window))
    assert tokens.shape == (2, LEADS, 2, WIDTH)
    assert torch.allclose(tokens.flatten(1, 2), expected[:, 1:], atol=1e-5)
    # Indices count the window's own patches.
    own = made.visible_tokens(window, torch.tensor([[0, 3, 23], [2, 3, 4]]))
    same = made.visible_tokens(full, torch.tensor([[0, 6, 56], [5, 6, 10]]))
    assert torch.allclose(own, same, atol=1e-5)


@pytest.mark.parametrize(("shape", "words"), [
    ((2, LEADS, 6 * PATCH), "6 patches"), ((2, LEADS, 0), "0 patches"), ((2, 1, PATCH), "1 leads"),
    ((2, LEADS, PATCH + 1), "multiple"),
])  # fmt: skip
def test_other_windows_are_refused(shape, words):
    for call in (encoder(), lambda window: encoder().visible_tokens(window, torch.zeros(2, 1).long())):
        with pytest.raises(ValueError, match=words):
            call(torch.zeros(shape))


def test_no_rows_give_no_features():
    made, nobody = encoder(covariates=2), torch.zeros(0, LEADS, PATCHES * PATCH)
    assert made(nobody).shape == made(nobody, torch.zeros(0, 2)).shape == (0, WIDTH)
    assert made.tokens(nobody).shape == (0, LEADS, PATCHES, WIDTH)
    index = torch.zeros(0, 15, dtype=torch.int64)
    tokens = made.visible_tokens(nobody, index)
    assert tokens.shape == (0, 16, WIDTH) and decoder()(tokens, index).shape == (0, ALL, PATCH)


@torch.no_grad()
def test_rows_do_not_influence_each_other():
    made, window, known = awake(encoder(covariates=2)), ecg(3), normal(3, 2, seed=1)
    assert torch.allclose(made(window, known)[1], made(window[1:2], known[1:2])[0], atol=1e-5)
    assert torch.allclose(made.tokens(window)[2], made.tokens(window[2:])[0], atol=1e-5)
    mask = mask_of(3)
    tokens = made.visible_tokens(window, mask.visible)
    assert torch.allclose(tokens[1], made.visible_tokens(window[1:2], mask.visible[1:2])[0], atol=1e-5)
    back = decoder()
    whole = back(tokens, mask.visible)
    assert torch.allclose(whole[1], back(tokens[1:2], mask.visible[1:2])[0], atol=1e-5)


def test_the_existing_encoders_tell_their_patches_too():
    leads = build_module("ecg_encoder", "nano", seed=0)
    window = normal(2, 12, 750)
    assert torch.equal(leads.patches_of(window), window.unflatten(2, (10, 75)))
    image = build_module("cmr_encoder", "nano", seed=0)
    cine = normal(2, 8, 32, 32)
    patches = image.patches_of(cine)
    assert patches.shape == (2, image.patches, 8 * 8 * 8)
    assert torch.equal(patches[1, 5], cine[1, :, 8:16, 8:16].permute(1, 2, 0).flatten())
    assert torch.equal(encoder().patches_of(ecg())[1, 7], ecg()[1, 1, 2 * PATCH : 3 * PATCH])


# -- Covariates ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_covariates_change_nothing_at_the_start_and_scale_and_shift_once_trained():
    made, window, known = encoder(covariates=3), ecg(), normal(2, 3, seed=1)
    assert torch.equal(made(window, known), made(window))
    assert torch.equal(made.tokens(window, known), made.tokens(window))
    plain = made.tokens(window)
    for parameter in made.film.parameters():
        parameter.copy_(normal(*parameter.shape, seed=2))
    unknown = made.tokens(window, torch.zeros_like(known))
    assert torch.equal(made.tokens(window), unknown), "without covariates they are unknown, which is 0"
    assert not torch.allclose(unknown, plain, atol=1e-2)
    gamma, beta = made.film.gamma(known), made.film.beta(known)
    assert (1.0 + gamma < 0).any(), "a factor may be negative"
    expected = plain * (1.0 + gamma[:, None, None]) + beta[:, None, None]
    assert torch.allclose(made.tokens(window, known), expected, atol=1e-5)
    assert not torch.allclose(made(window, known), made(window), atol=1e-2)


def test_the_final_norm_comes_after_the_covariates():
    made, window, known = awake(encoder(covariates=3)), ecg(), normal(2, 3, seed=1)
    kept = []
    made.blocks.register_forward_hook(lambda *call: kept.append(call[2]))
    feature = made(window, known)
    assert torch.equal(feature, made.norm(made.film(kept[0], known)[:, 0]))


def test_every_map_of_the_covariates_learns_from_the_first_step_on():
    made = encoder(covariates=3)
    (made(ecg(), normal(2, 3, seed=1)) * normal(2, WIDTH, seed=2)).sum().backward()
    for parameter in made.film.parameters():
        assert (parameter.grad.abs() > 0).all(), "no unit sleeps"


def test_covariates_for_an_encoder_without_are_refused():
    with pytest.raises(ValueError, match="covariates"):
        encoder()(ecg(), torch.zeros(2, 3))


# -- Against timm --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "depth", "heads"), [(64, 2, 4), (256, 3, 4)])
@torch.no_grad()
def test_the_same_weights_give_what_timm_gives(timm, width, depth, heads):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs = timm.vit(
            img_size=(12, 1000),
            patch_size=(1, 100),
            in_chans=1,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            class_token=True,
        )
    assert theirs.norm.eps == theirs.blocks[0].norm1.eps == 1e-6
    awake(theirs.eval())
    ours = EcgVit(leads=12, patch=100, patches=10, width=width, depth=depth, heads=heads).eval()
    state = theirs.state_dict()
    mapped = {
        "embed.weight": state.pop("patch_embed.proj.weight").flatten(1),
        "embed.bias": state.pop("patch_embed.proj.bias"),
        "cls": state.pop("cls_token").flatten(),
        "position": state.pop("pos_embed")[0],
    }
    names = {
        "norm1": "norm_attention",
        "norm2": "norm_mlp",
        "attn.qkv": "attention.qkv",
        "attn.proj": "attention.out",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
    }
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)
        mapped[name] = value
    ours.load_state_dict(mapped)
    window = normal(2, 12, 1000) * 0.5
    expected = theirs(window[:, None])
    assert expected.std() > 0.3, "values of a size at which the tolerance means something"
    assert (ours(window) - expected).abs().max() < 1e-5
    tokens = theirs.forward_features(window[:, None])[:, 1:].unflatten(1, (12, 10))
    assert (ours.norm(ours.tokens(window)) - tokens).abs().max() < 1e-5


# -- The decoder ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_decoder_puts_visible_tokens_at_their_places_and_the_mask_token_elsewhere():
    back, mask, tokens = decoder(depth=0), mask_of(), normal(2, 16, WIDTH)
    found = back(tokens, mask.visible)
    assert found.shape == (2, ALL, PATCH)
    place = sincos_grid(LEADS, PATCHES, 16)
    for row in range(2):
        seen, hidden = mask.visible[row], mask.hidden[row]
        at_seen = back.predict(back.norm(back.embed(tokens[row, 1:]) + place[seen]))
        at_hidden = back.predict(back.norm(back.hidden + place[hidden]))
        assert torch.allclose(found[row, seen], at_seen, atol=1e-5)
        assert torch.allclose(found[row, hidden], at_hidden, atol=1e-5)


@torch.no_grad()
def test_every_prediction_depends_on_cls_and_on_every_visible_patch():
    back, mask, tokens = decoder(), mask_of(1), normal(1, 16, WIDTH)
    plain = back(tokens, mask.visible)
    for place in (0, 1, 15):
        changed = tokens.clone()
        changed[0, place] += normal(WIDTH, seed=3)
        assert ((back(changed, mask.visible) - plain).abs().amax(dim=-1) > 0).all()


def test_the_decoder_s_table_is_neither_trained_nor_saved():
    back = decoder()
    assert not any("table" in name for name in [*back.state_dict(), *dict(back.named_parameters())])
    table = back.table.get_buffer("table")
    assert torch.equal(table[1:], sincos_grid(LEADS, PATCHES, 16)) and not table[0].any()


# -- Gradients -----------------------------------------------------------------------------------------


def reconstruction_losses(made: EcgVit, back: EcgVitDecoder, windows: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each row over its hidden patches."""
    mask = mask_of(len(windows))
    predicted = back(made.visible_tokens(windows, mask.visible), mask.visible)
    error = gather_patches(predicted - made.patches_of(windows), mask.hidden)
    return error.square().mean(dim=(1, 2))


def feature_losses(made: EcgVit, windows: torch.Tensor) -> torch.Tensor:
    """A loss of each row that reads feature and covariates."""
    known = normal(len(windows), 3, seed=1)
    return (made(windows, known) - normal(len(windows), WIDTH, seed=2)).square().sum(dim=1)


def test_the_gradient_reaches_every_parameter():
    made, back = awake(encoder(covariates=3)), decoder()
    feature_losses(made, ecg()).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    made = awake(encoder())
    reconstruction_losses(made, back, ecg()).sum().backward()
    for name, parameter in [*made.named_parameters(), *back.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("mode", ["layers", "loop"])
@pytest.mark.parametrize("case", ["feature", "reconstruction", "reconstruction, fixed position"])
def test_the_sum_of_clipped_gradients_equals_that_of_single_ones(case: str, mode: Any) -> None:
    rows = 4
    windows = ecg(rows)
    windows[1:] *= torch.tensor([2.0, 3.0, 0.5])[:, None, None]
    trained: dict[str, nn.Module]
    if case == "feature":
        made = awake(encoder(covariates=3))
        trained = {"ecg_encoder": made}

        def losses() -> torch.Tensor:
            return feature_losses(made, windows)

    else:
        made, back = awake(encoder()), decoder()
        made.position.requires_grad_("fixed" not in case)
        trained = {"ecg_encoder": made, "ecg_decoder": back}

        def losses() -> torch.Tensor:
            return reconstruction_losses(made, back, windows)

    assert is_covered(list(trained.values()))
    assert choose_mode(trained, compiled=False) == "layers"
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    single = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses()]
    sizes = [float(torch.stack([g.double().square().sum() for g in row]).sum().sqrt()) for row in single]
    clip = float(np.median(sizes))
    factors = [min(1.0, clip / size) for size in sizes]
    assert min(factors) < 1.0 == max(factors)
    summed = ClippedSums(trained, clip_norm=clip, mode=mode, first_rows=rows)
    norms = summed.add(lambda begin, end: losses()[begin:end], rows=rows)
    assert norms.numpy() == pytest.approx(np.array(sizes), rel=2e-5)
    for parameter, found, *each in zip(parameters, summed.take(), *single, strict=True):
        wanted = sum(factor * gradient for factor, gradient in zip(factors, each, strict=True))
        assert float((found - wanted).abs().max()) <= 2e-5 * clip, parameter.shape
