"""The earlier generation's CMR tower: against another Swin, what it hides, gradients of single rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from cardionets_core.models.patches import unpatchify_cine
from cardionets_core.models.swin import CmrSwin, SwinDecoder, WindowAttention
from cardionets_core.models.transformer import DrawsOwnWeights, initialise
from cardionets_core.privacy.layers import check_rows_apart, is_covered
from cardionets_core.privacy.per_sample import ClippedSums, choose_mode

NANO = {
    "frames": 8,
    "pixels": 32,
    "patch": 4,
    "width": 128,
    "depths": (1, 1),
    "heads": (2, 4),
    "window": 4,
}
SMALL = {
    "frames": 24,
    "pixels": 112,
    "patch": 4,
    "width": 96,
    "depths": (2, 2, 4),
    "heads": (3, 6, 12),
    "window": 7,
}
PAPER = {
    "frames": 50,
    "pixels": 224,
    "patch": 4,
    "width": 128,
    "depths": (2, 2, 18, 2),
    "heads": (4, 8, 16, 32),
    "window": 7,
}
TINY = {
    "frames": 3,
    "pixels": 32,
    "patch": 2,
    "width": 16,
    "depths": (2, 3, 2),
    "heads": (2, 4, 8),
    "window": 4,
}
"""Three stages, of which the first two have shifted windows."""
TOLERANCE = 1e-5


def built(sizes, *, seed=0):
    """As ``build_module`` builds: constructed on the CPU, then drawn from a generator."""
    with torch.random.fork_rng(devices=[]):
        module = CmrSwin(**sizes)
    assert not isinstance(module, DrawsOwnWeights)
    initialise(module, torch.Generator().manual_seed(seed))
    return module


def head_of(tower):
    with torch.random.fork_rng(devices=[]):
        decoder = SwinDecoder(width=tower.width, unit=tower.unit, frames=tower.frames)
    initialise(decoder, torch.Generator().manual_seed(1))
    return decoder


def livened(module):
    """Every parameter random and large enough that its place matters."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


def cines(rows, sizes, *, pixels=None, seed=0):
    side = pixels or sizes["pixels"]
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(rows, sizes["frames"], side, side, generator=draw) * 2.0 - 1.0


def on_meta(sizes):
    with torch.device("meta"):
        return CmrSwin(**sizes)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [(NANO, 1_137_830), (SMALL, 8_631_378), (PAPER, 86_839_608)],
    ids=["nano", "small", "paper"],
)
def test_parameter_counts(sizes, count):
    assert sum(parameter.numel() for parameter in on_meta(sizes).parameters()) == count


def test_the_paper_s_tower_has_the_paper_s_size():
    assert sum(p.numel() for p in on_meta(PAPER).parameters()) == pytest.approx(87e6, rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "width", "unit", "side"),
    [(NANO, 256, 8, 4), (SMALL, 384, 16, 7), (PAPER, 1024, 32, 7)],
    ids=["nano", "small", "paper"],
)
def test_sizes_and_shapes_on_the_meta_device(sizes, width, unit, side):
    tower = on_meta(sizes)
    pixels, frames, patches = sizes["pixels"], sizes["frames"], side * side
    assert (tower.width, tower.unit, tower.side, tower.patches) == (width, unit, side, patches)
    assert (tower.pixels, tower.frames) == (pixels, frames)
    cine = torch.empty(2, frames, pixels, pixels, device="meta")
    hidden = torch.empty(2, 3, dtype=torch.int64, device="meta")
    assert tower(cine).shape == (2, width)
    assert tower.tokens(cine).shape == (2, patches, width)
    tokens = tower.tokens_hidden(cine, hidden)
    assert tokens.shape == (2, patches, width)
    with torch.device("meta"):
        decoder = SwinDecoder(width=width, unit=unit, frames=frames)
    assert sum(p.numel() for p in decoder.parameters()) == (width + 1) * unit * unit * frames
    assert decoder(tokens).shape == tower.patches_of(cine).shape == (2, patches, unit * unit * frames)


def name_of_timm(name):
    """Where timm keeps a parameter of ours; the mask token has no place there."""
    for ours, theirs in {
        "norm_embed.": "patch_embed.norm.",
        "embed.": "patch_embed.proj.",
        "norm_attention": "norm1",
        "norm_mlp": "norm2",
        "attention.qkv": "attn.qkv",
        "attention.out": "attn.proj",
        "attention.relative_bias": "attn.relative_position_bias_table",
        "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }.items():
        if ours in name:
            name = name.replace(ours, theirs)
            break
    if not name.startswith("stages."):
        return name
    _, stage, place, rest = name.split(".", 3)
    if stage == "0":
        return f"layers.0.blocks.{place}.{rest}"
    if place == "0":
        return f"layers.{stage}.downsample.{rest.replace('reduce', 'reduction')}"
    return f"layers.{stage}.blocks.{int(place) - 1}.{rest}"


def timm_s(timm, sizes):
    with torch.random.fork_rng(devices=[]):
        return timm.swin(
            img_size=sizes["pixels"],
            patch_size=sizes["patch"],
            in_chans=sizes["frames"],
            num_classes=0,
            global_pool="avg",
            embed_dim=sizes["width"],
            depths=sizes["depths"],
            num_heads=sizes["heads"],
            window_size=sizes["window"],
        ).eval()


@pytest.mark.parametrize("theirs_first", [True, False])
@pytest.mark.parametrize("sizes", [TINY, NANO, SMALL], ids=["tiny", "nano", "small"])
@torch.no_grad()
def test_the_same_weights_give_what_timm_gives(timm, sizes, theirs_first):
    tower, model = built(sizes), timm_s(timm, sizes)
    livened(model if theirs_first else tower)
    names = {name: name_of_timm(name) for name, _ in tower.named_parameters() if name != "mask_token"}
    state = model.state_dict()
    assert sorted(names.values()) == sorted(state)
    if theirs_first:
        tower.load_state_dict({name: state[theirs] for name, theirs in names.items()}, strict=False)
    else:
        own = tower.state_dict()
        model.load_state_dict({theirs: own[name] for name, theirs in names.items()})
    cine = cines(2, sizes)
    expected = model.forward_features(cine)
    assert expected.std() > 0.3, "values of a size at which the tolerance means something"
    found = tower.tokens(cine).unflatten(1, (tower.side, tower.side))
    assert (found - expected).abs().max() < TOLERANCE * max(1.0, float(expected.abs().max()))
    assert (tower(cine) - model(cine)).abs().max() < TOLERANCE


@pytest.mark.parametrize(("window", "shift"), [(4, 0), (4, 2), (4, 1), (8, 0), (2, 1)])
@torch.no_grad()
def test_a_position_attends_to_those_between_the_same_borders(window, shift):
    """One position after the other: borders lie every ``window`` positions from ``shift`` on."""
    grid, heads, width = 8, 2, 6
    layer = livened(WindowAttention(width, heads=heads, grid=grid, window=window, shift=shift))
    tokens = torch.randn(1, grid, grid, width, generator=torch.Generator().manual_seed(0))
    query, key, value = layer.qkv(tokens)[0].unflatten(2, (3, heads, 3)).unbind(2)
    found = layer(tokens)[0]
    places = [(y, x) for y in range(grid) for x in range(grid)]
    reach = 2 * window - 1
    for y, x in places:
        near = [
            (v, u)
            for v, u in places
            if (v - shift) // window == (y - shift) // window
            and (u - shift) // window == (x - shift) // window
        ]
        score = torch.stack(
            [
                (query[y, x] * key[v, u]).sum(dim=1) * 3**-0.5
                + layer.relative_bias[(y - v + window - 1) * reach + x - u + window - 1]
                for v, u in near
            ]
        )
        mixed = (score.softmax(dim=0)[..., None] * torch.stack([value[v, u] for v, u in near])).sum(dim=0)
        assert torch.allclose(found[y, x], layer.out(mixed.flatten()), atol=1e-5), (y, x)


def test_only_whole_windows_of_a_larger_grid_are_shifted():
    shifts = [
        part.shift for part in on_meta(TINY).modules() if hasattr(part, "shift") and hasattr(part, "qkv")
    ]
    assert shifts == [0, 2, 0, 2, 0, 0, 0]


def test_weights_follow_from_the_generator_alone():
    torch.manual_seed(1)
    first = built(TINY, seed=5)
    torch.manual_seed(2)
    again, other = built(TINY, seed=5), built(TINY, seed=6)
    for (name, a), b in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(first.mask_token, other.mask_token)
    for name, parameter in first.named_parameters():
        if name.endswith(("relative_bias", "mask_token")):
            assert 0.005 < float(parameter.detach().std()) < 0.04, name


def test_the_state_is_the_parameters():
    tower = built(TINY)
    assert list(tower.state_dict()) == [name for name, _ in tower.named_parameters()]
    assert {name.rsplit(".", 1)[1] for name, _ in tower.named_buffers()} == {"distance", "apart"}


def test_rows_do_not_influence_each_other():
    tower = livened(built(TINY))
    cine = cines(3, TINY)
    assert torch.allclose(tower(cine)[1], tower(cine[1:2])[0], atol=1e-5)
    changed = cine.clone()
    changed[[0, 2]] = 0.5
    assert torch.equal(tower.tokens(changed)[1], tower.tokens(cine)[1])


def test_no_rows_give_no_features():
    tower = built(TINY)
    nothing = torch.zeros(0, 3, 32, 32)
    assert tower(nothing).shape == (0, 64)
    assert tower.tokens_hidden(nothing, torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 16, 64)
    assert tower.patches_of(torch.zeros(0, 3, 24, 24)).shape == (0, 16, 8 * 8 * 3)


@torch.no_grad()
def test_the_pixels_of_hidden_units_are_never_seen():
    tower = livened(built(TINY))
    hidden = torch.tensor([[0, 5, 10], [3, 4, 15]])
    cine = cines(2, TINY)
    before = tower.tokens_hidden(cine, hidden)
    assert not torch.allclose(before, tower.tokens(cine), atol=1e-3)
    units = tower.patches_of(cine)

    changed = units.scatter(1, hidden[..., None].expand(-1, -1, units.shape[2]), torch.nan)
    unseen = unpatchify_cine(changed, pixels=tower.unit, frames=tower.frames)
    assert torch.equal(before, tower.tokens_hidden(unseen, hidden))
    for unit in range(tower.patches):
        changed = units.clone()
        changed[:, unit] += 0.5
        seen = tower.tokens_hidden(unpatchify_cine(changed, pixels=8, frames=3), hidden)
        for row in range(2):
            same = torch.equal(seen[row], before[row])
            assert same == (unit in hidden[row]), (row, unit)


@torch.no_grad()
def test_nothing_hidden_gives_the_plain_tokens():
    tower = built(TINY)
    cine = cines(2, TINY)
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert torch.equal(tower.tokens_hidden(cine, none), tower.tokens(cine))


def test_the_gradient_reaches_every_parameter():
    tower = built(TINY)
    decoder = head_of(tower)
    hidden = torch.tensor([[0, 5], [3, 4]])
    cine = cines(2, TINY)
    (decoder(tower.tokens_hidden(cine, hidden)) - tower.patches_of(cine)).square().mean().backward()
    for name, parameter in [*tower.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    tower.zero_grad()
    tower(cine).square().mean().backward()
    assert tower.mask_token.grad is None, "the mask token belongs to pretraining alone"


@pytest.mark.parametrize(("pixels", "shrinks"), [(24, False), (80, True), (96, True)])
@torch.no_grad()
def test_a_cine_of_another_size_is_resized(pixels, shrinks):
    tower = built(TINY)
    cine = cines(2, TINY, pixels=pixels)
    resized = tower.resized(cine)
    expected = interpolate(cine, size=(32, 32), mode="bilinear", align_corners=False, antialias=shrinks)
    assert torch.equal(resized, expected)
    assert resized.abs().max() <= 1.0
    assert torch.equal(tower.tokens(cine), tower.tokens(resized))
    assert torch.equal(unpatchify_cine(tower.patches_of(cine), pixels=8, frames=3), resized)
    level = torch.full((1, 3, pixels, pixels), -0.25)
    assert torch.allclose(tower.resized(level), torch.full((1, 3, 32, 32), -0.25))


def test_a_cine_of_its_own_size_is_not_copied():
    cine = cines(1, TINY)
    assert built(TINY).resized(cine) is cine


def test_bf16_comes_near_to_fp32():
    tower = built(TINY)
    cine = cines(2, TINY)
    hidden = torch.tensor([[0, 5], [3, 4]])
    plain = tower.tokens_hidden(cine, hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = tower.tokens_hidden(cine, hidden)
    assert coarse.dtype == torch.float32
    assert torch.allclose(coarse, plain, atol=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": 33}, "33 pixels are not a multiple of the patch of 2"),
        ({"pixels": 36, "window": 3}, "a grid of 9 positions cannot be halved"),
        ({"pixels": 40}, "a grid of 10 positions is not a multiple of the window of 4"),
        ({"width": 18}, "a width of 36 is not a multiple of its 8 heads"),
        ({"heads": (2, 4)}, "shorter"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, words):
    if "width" in change:
        change = change | {"heads": (2, 8, 8)}
    with pytest.raises(ValueError, match=words):
        on_meta(TINY | change)


def test_an_oblong_cine_is_refused():
    with pytest.raises(ValueError, match="32 x 24 pixels are not a square cine"):
        built(TINY)(torch.zeros(1, 3, 32, 24))


class Pretrained(nn.Module):
    """Tower and head in one, as gradients of single rows see them."""

    def __init__(self, sizes):
        super().__init__()
        self.tower = built(sizes)
        self.decoder = head_of(self.tower)

    def losses(self, cine, hidden):
        error = self.decoder(self.tower.tokens_hidden(cine, hidden)) - self.tower.patches_of(cine)
        return error.square().mean(dim=(1, 2)) + self.tower(cine).square().mean(dim=1)


@pytest.mark.parametrize("mode", ["chosen", "loop"])
@pytest.mark.parametrize("sizes", [NANO, TINY], ids=["nano", "tiny"])
def test_the_sum_of_clipped_gradients_equals_that_of_single_ones(sizes, mode):
    model = Pretrained(sizes)
    check_rows_apart([model])
    assert is_covered([model]) and choose_mode({"m": model}, compiled=False) == "layers"
    rows = 4
    cine = cines(rows, sizes)
    hidden = torch.tensor([[0, 5], [3, 4], [7, 9], [1, 15]])
    parameters = list(model.parameters())
    single = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in model.losses(cine, hidden)]
    norms = [float(torch.cat([g.flatten() for g in each]).double().norm()) for each in single]
    clip = float(np.median(norms))
    chosen = choose_mode({"m": model}, compiled=False) if mode == "chosen" else mode
    summed = ClippedSums({"m": model}, clip_norm=clip, mode=chosen)
    found_norms = summed.add(lambda a, b: model.losses(cine[a:b], hidden[a:b]), rows=rows)
    assert found_norms.numpy() == pytest.approx(np.array(norms), rel=2e-5)
    factors = [min(1.0, clip / size) for size in norms]
    assert min(factors) < 1.0 <= max(factors)
    for (name, _), found, *each in zip(model.named_parameters(), summed.take(), *single, strict=True):
        wanted = sum(factor * gradient for factor, gradient in zip(factors, each, strict=True))
        assert float((found - wanted).abs().max()) <= 2e-5 * clip, name


def test_a_mask_token_that_nothing_needs_adds_nothing():
    tower = built(NANO)
    cine = cines(2, NANO)
    summed = ClippedSums({"t": tower}, clip_norm=1.0, mode=choose_mode({"t": tower}, compiled=False))
    summed.add(lambda a, b: tower(cine[a:b]).square().mean(dim=1), rows=2)
    found = dict(zip((name for name, _ in tower.named_parameters()), summed.take(), strict=True))
    assert not found.pop("mask_token").any()
    assert all(value.any() for value in found.values())
