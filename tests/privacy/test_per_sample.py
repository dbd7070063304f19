"""Gradients of single rows in every phase whose loss decomposes, against a loop of single gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cardionets_core.data.cohort import Cohort
from cardionets_core.errors import ConfigError
from cardionets_core.models import MODULES, build_module, get_preset
from cardionets_core.privacy.layers import WatchedLayers, check_rows_apart, is_covered
from cardionets_core.privacy.per_sample import ClippedSums, choose_mode
from cardionets_core.tasks import TASKS, GradientTask, SiteView, make_task
from cardionets_core.tasks.shapes import shape_of

ROWS = 5

NANO, EARLIER = "nano", "nano+cardiacnets"
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "ecg_mae": ("ecg_mae", {}, 0),
    "cmr_mae": ("cmr_mae", {}, 0),
    "align, cosine": ("align", {"loss": "cosine"}, 0),
    "align, cosine and phenotypes": ("align", {"loss": "cosine", "phenotype_weight": 0.5}, 0),
    "align, ECGs alone": ("align", {"loss": "cosine"}, 1),
    "phenotype": ("phenotype", {}, 0),
    "phenotype, encoder too": ("phenotype", {"train_encoder": True}, 0),
    "screening": ("screening", {}, 0),
    "screening, encoder too": ("screening", {"train_encoder": True}, 0),
    "tokenizer": ("tokenizer", {}, 0),
    "generate": ("generate", {}, 0),
    "generate, cines alone": ("generate", {"cine_only_sites": True}, 1),
    "fuse": ("fuse", {}, 0),
}
"""Task, options, and which of its roles."""
OF_EARLIER: dict[str, tuple[str, dict[str, Any], int]] = {
    "earlier ecg_mae": ("ecg_mae", {}, 0),
    "earlier cmr_mae, cosine": ("cmr_mae", {"contrast": "cosine"}, 0),
    "earlier cmr_mae, cosine, nobody with both": ("cmr_mae", {"contrast": "cosine"}, 0),
    "earlier cmr_mae, towers alone": ("cmr_mae", {"contrast": "off"}, 0),
    "earlier cmr_mae, short axis alone": ("cmr_mae", {"contrast": "cosine"}, 2),
    "earlier align, cosine": ("align", {"loss": "cosine"}, 0),
    "earlier screening, encoder too": ("screening", {"train_encoder": True}, 0),
    "earlier generate": ("generate", {}, 0),
    "earlier generate, short axis": ("generate", {"view": "sax"}, 0),
}
"""The same of the earlier generation."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_cohort(
    rows: int = ROWS, seed: int = 0, *, lacks_short_axis: int = 1, one_view_each: bool = False
) -> Cohort:
    """Rows with everything, but that the one of that number has no short axis, or each has one view alone."""
    rng = np.random.default_rng(seed)
    places = np.arange(rows)
    long_axis, short_axis = places, np.where(places == lacks_short_axis, -1, places[::-1])
    if one_view_each:
        long_axis, short_axis = (np.where(places % 2 == part, places, -1) for part in (0, 1))
    return Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, rows * 12 * 1000).astype(np.int16),
        ecg_offsets=np.arange(rows) * 1000,
        ecg_samples=np.full(rows, 1000),
        cines=rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=long_axis,
        row_views={"sax": short_axis},
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=np.tile(np.array([[0, 1, 1, 0, 1, 1, 0, 0]], dtype=np.float32), (rows, 1)),
    )


def opened(case: str) -> tuple[dict[str, nn.Module], Callable[[], torch.Tensor]]:
    """The trained modules of a case, and its per-sample losses: each call draws the same."""
    models = EARLIER if case in OF_EARLIER else NANO
    name, options, place = {**CASES, **OF_EARLIER}[case]
    task = make_task(name, options, get_preset(models).parts)
    assert isinstance(task, GradientTask) and task.decomposes
    role = task.roles[place]
    modules = {module: build_module(module, models, seed=1) for module in MODULES}
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in modules.values():
            for parameter in module.parameters():
                # Zero layers would hide what lies behind them; an unsolved module is refused.
                if not parameter.any():
                    parameter.normal_(std=0.02, generator=generator)
        for principal in ("cmr_principal", "sax_principal"):
            for parameter in modules[principal].parameters():
                parameter.normal_(generator=generator).abs_()
    task.prepare_modules(modules, role)
    cohort = make_cohort(
        lacks_short_axis=-1 if "sax" in role.row_needs else 1, one_view_each=case.endswith("nobody with both")
    )
    site = SiteView(cohort=cohort, shape=shape_of(models), device=torch.device("cpu"))
    state = task.open_round(modules, site, role)
    rows = site.rows(role.row_needs, "train")
    windows = np.random.default_rng(0)
    batch = site.cohort.batch(rows, keys=role.row_needs, shape=site.shape, generator=windows)

    def losses() -> torch.Tensor:
        torch.manual_seed(3)
        found = task.loss(modules, batch, state, generator=torch.Generator().manual_seed(2))
        assert found.per_sample_B is not None
        return found.per_sample_B

    return {module: modules[module] for module in role.trains}, losses


def single_gradients(
    trained: dict[str, nn.Module], losses: Callable[[], torch.Tensor]
) -> list[list[torch.Tensor]]:
    """The reference: autograd of one row's loss after the other, from one forward pass."""
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    return [
        [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(
                parameters,
                torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True),
                strict=True,
            )
        ]
        for loss in losses()
    ]


def norm(gradients: list[torch.Tensor]) -> float:
    return float(torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt())


def test_every_phase_that_decomposes_is_a_case():
    named = {name for name, _, _ in CASES.values()}
    assert named == {
        name
        for name, kind in TASKS.items()
        if issubclass(kind, GradientTask) and (make_task(name, {}).decomposes or name == "align")
    }


@pytest.mark.parametrize("case", [*CASES, *OF_EARLIER])
def test_gradients_of_single_rows_equal_autograd_s(case: str) -> None:
    trained, losses = opened(case)
    expected = single_gradients(trained, losses)
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    with WatchedLayers(trained.values()) as watched:
        found = watched.gradients(losses())
        for row in range(ROWS):
            sums = {parameter: torch.zeros_like(parameter) for parameter in parameters}
            found.add_weighted(sums, torch.eye(ROWS)[row])
            size = norm(expected[row])
            assert size > 0.0
            for parameter, wanted in zip(parameters, expected[row], strict=True):
                assert float((sums[parameter] - wanted).abs().max()) <= 1e-6 * size
            assert float(found.square_N[row].sqrt()) == pytest.approx(size, rel=2e-5)
            # What is clipped against is never smaller than the truth.
            assert float((found.square_N + found.slack_N)[row].sqrt()) >= size * (1 - 1e-7)
    assert all(parameter.requires_grad for parameter in parameters)


@pytest.mark.parametrize("case", [*CASES, *OF_EARLIER])
@pytest.mark.parametrize("mode", ["layers", "loop"])
def test_the_sum_of_clipped_gradients_equals_that_of_single_ones(case: str, mode: Any) -> None:
    """The loop asks for one row's loss at a time, each of the same draws."""
    trained, losses = opened(case)
    expected = single_gradients(trained, losses)
    sizes = [norm(gradients) for gradients in expected]
    clip = float(np.median(sizes))
    parameters = [p for module in trained.values() for p in module.parameters() if p.requires_grad]
    summed = ClippedSums(trained, clip_norm=clip, mode=mode, first_rows=ROWS)
    norms = summed.add(lambda begin, end: losses()[begin:end], rows=ROWS)
    assert norms.numpy() == pytest.approx(np.array(sizes), rel=2e-5)
    factors = [min(1.0, clip / size) for size in sizes]
    assert min(factors) < 1.0 <= max(factors)
    for parameter, found, *each in zip(parameters, summed.take(), *expected, strict=True):
        wanted = sum(factor * gradient for factor, gradient in zip(factors, each, strict=True))
        assert float((found - wanted).abs().max()) <= 2e-5 * clip, parameter.shape
    assert not any(value.any() for value in summed.take())


ROW_BYTES = 4 * (4 * (3 + 8 + 8 + 2) + 3 * 8 + 8 * 2)
"""Of the two layers below: 4 tokens in and out of each, and the gradients, of more tokens than features."""


@pytest.mark.parametrize(
    ("part_bytes", "parts"),
    [(0, [2, 1, 1, 1, 1, 1]), (4 * ROW_BYTES, [2, 3, 2]), (5 * ROW_BYTES - 1, [2, 3, 2]), (1 << 30, [2, 5])],
)
def test_the_sum_does_not_depend_on_the_parts(part_bytes: int, parts: list[int]) -> None:
    """After the first one, a part has as many rows as may be held, and all are of like size."""
    layer = nn.Sequential(nn.Linear(3, 8, bias=False), nn.GELU(), nn.Linear(8, 2, bias=False))
    inputs = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []

    def total(mode: Any) -> list[torch.Tensor]:
        def loss_of(begin: int, end: int) -> torch.Tensor:
            seen.append(end - begin)
            return layer(inputs[begin:end]).square().sum(dim=(1, 2))

        summed = ClippedSums({"layer": layer}, clip_norm=0.5, mode=mode, part_bytes=part_bytes, first_rows=2)
        summed.add(loss_of, rows=7)
        return summed.take()

    by_rows, by_parts = total("loop"), total("layers")
    assert seen == [1] * 7 + parts
    for found, wanted in zip(by_parts, by_rows, strict=True):
        assert float((found - wanted).abs().max()) <= 2e-6


def test_no_rows_add_nothing():
    trained, losses = opened("ecg_mae")
    summed = ClippedSums(trained, clip_norm=1.0)
    assert len(summed.add(lambda begin, end: losses()[begin:end], rows=0)) == 0
    assert not any(value.any() for value in summed.take())


@pytest.mark.parametrize("mode", ["layers", "loop"])
def test_a_row_that_is_not_finite_adds_nothing_and_the_others_all(mode: Any) -> None:
    layer = nn.Linear(3, 2)
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    broken = inputs.clone()
    broken[1, 2] = float("inf")

    def sums(values: torch.Tensor) -> tuple[list[torch.Tensor], int]:
        summed = ClippedSums({"layer": layer}, clip_norm=0.5, mode=mode)
        summed.add(lambda begin, end: layer(values[begin:end]).square().sum(dim=1), rows=len(values))
        return summed.take(), summed.unusable

    found, unusable = sums(broken)
    wanted, none = sums(inputs[[0, 2, 3]])
    assert (unusable, none) == (1, 0)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("mode", ["layers", "loop"])
def test_one_row_more_changes_the_sum_by_at_most_the_clip(mode: Any) -> None:
    layer = nn.Linear(30, 20)
    generator = torch.Generator().manual_seed(0)
    inputs = 1e4 * torch.randn(6, 7, 30, generator=generator)

    def total(rows: int) -> list[torch.Tensor]:
        summed = ClippedSums({"layer": layer}, clip_norm=0.1, mode=mode)
        summed.add(lambda begin, end: layer(inputs[begin:end]).square().sum(dim=(1, 2)), rows=rows)
        return summed.take()

    change = [a - b for a, b in zip(total(6), total(5), strict=True)]
    assert norm(change) <= 0.1 * (1 + 1e-5)


def test_a_layer_that_is_used_twice_adds_both_uses_before_it_is_clipped():
    layer = nn.Linear(4, 4)
    inputs = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    trained: dict[str, nn.Module] = {"layer": layer}

    def losses() -> torch.Tensor:
        return layer(torch.tanh(layer(inputs))).square().sum(dim=(1, 2))

    expected = single_gradients(trained, losses)
    with WatchedLayers([layer]) as watched:
        found = watched.gradients(losses())
    for row in range(3):
        assert float(found.square_N[row].sqrt()) == pytest.approx(norm(expected[row]), rel=1e-5)


def test_batch_norms_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(ConfigError, match="BatchNorm"):
        check_rows_apart([model])
    with pytest.raises(ConfigError, match="BatchNorm"):
        ClippedSums({"model": model}, clip_norm=1.0)


def test_the_mode_follows_the_layers_of_the_modules():
    built = {name: build_module(name, "nano", seed=0) for name in ("ecg_encoder", "cmr_tokenizer")}
    assert choose_mode({"e": built["ecg_encoder"]}, compiled=False) == "layers"
    assert choose_mode({"e": built["ecg_encoder"]}, compiled=True) == "loop"
    assert choose_mode(built, compiled=False) == "loop"

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(3))

    assert not is_covered([Bare()]) and choose_mode({"b": Bare()}, compiled=False) == "loop"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_of_ours_can_be_watched(name: str) -> None:
    module = build_module(name, "nano", seed=0)
    solved = name in {
        "cmr_principal",
        "sax_principal",
        "phenotype_standardiser",
        "screening_prior",
        "screening_calibration",
    }
    # Solved modules are never trained by steps; the learned scale belongs to a loss that couples the batch.
    assert is_covered([module]) == (not solved and name != "align_scale")
