"""Losses of one row: cosine distillation, the phenotype term, MOON. They decompose (SCIENCE 8.7, 8.20)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cosine_similarity, smooth_l1_loss

from cardionets_core.losses import cosine_distillation, masked_smooth_l1, moon


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moon_at(local: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return moon(local, reference, previous_BE=reference.roll(1, dims=1), temperature=0.5)


ROW_LOSSES = [
    pytest.param(cosine_distillation, id="cosine"),
    pytest.param(moon_at, id="moon"),
    pytest.param(masked_smooth_l1, id="smooth-l1"),
]


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_a_row_s_gradient_reaches_this_row_only(loss):
    moving = draw(5, 4).requires_grad_()
    rows = loss(moving, draw(5, 4, seed=1))
    assert rows.shape == (5,)
    for i in range(5):
        gradient = torch.autograd.grad(rows[i], moving, retain_graph=True)[0]
        assert gradient[i].abs().sum() > 0
        assert not torch.cat([gradient[:i], gradient[i + 1 :]]).any()


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_a_row_s_loss_does_not_depend_on_the_batch(loss):
    moving, target = draw(6, 4), draw(6, 4, seed=1)
    together = loss(moving, target)
    alone = torch.cat([loss(moving[i : i + 1], target[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-12)
    assert loss(moving[:0], target[:0]).shape == (0,)


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_per_sample_gradients_of_a_module_add_up_to_the_batch_s(loss):
    layer = torch.nn.Linear(7, 4).double()
    with torch.no_grad():
        layer.weight.copy_(draw(4, 7, seed=5))
        layer.bias.copy_(draw(4, seed=6))
    x, target = draw(6, 7, seed=2), draw(6, 4, seed=3)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def one(params, row, goal):
        return loss(functional_call(layer, params, (row[None],)), goal[None]).squeeze(0)

    each = vmap(grad(one), in_dims=(None, 0, 0))(parameters, x, target)
    loss(layer(x), target).mean().backward()
    for name, parameter in layer.named_parameters():
        assert torch.allclose(each[name].mean(dim=0), parameter.grad, atol=1e-7)


@pytest.mark.parametrize("loss", [cosine_distillation, moon_at])
def test_gradients_equal_finite_differences(loss):
    target = draw(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), (draw(4, 3).requires_grad_(),))


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_one_step_of_all_sites_is_the_pooled_step(loss):
    weight = draw(7, 4).requires_grad_()
    x, target = draw(34, 7, seed=1), draw(34, 4, seed=2)
    pooled = torch.autograd.grad(loss(x @ weight, target).mean(), weight)[0]
    parts = zip(x.split([5, 9, 20]), target.split([5, 9, 20]), strict=True)
    federated = sum(
        len(rows) / 34 * torch.autograd.grad(loss(rows @ weight, goal).mean(), weight)[0]
        for rows, goal in parts
    )
    assert torch.allclose(federated, pooled, atol=1e-7)


def test_cosine_distillation_equals_torch_and_its_limits():
    moving, target = draw(6, 5), draw(6, 5, seed=1)
    assert torch.allclose(cosine_distillation(moving, target), 1 - cosine_similarity(moving, target))
    assert torch.allclose(cosine_distillation(moving, 3 * moving), torch.zeros(6, dtype=torch.float64))
    assert torch.allclose(cosine_distillation(moving, -moving), torch.full((6,), 2.0, dtype=torch.float64))
    assert torch.equal(cosine_distillation(moving, 0 * target), torch.ones(6, dtype=torch.float64))


def test_targets_receive_no_gradient():
    moving, target, previous = (draw(3, 4, seed=seed).requires_grad_() for seed in range(3))
    cosine_distillation(moving, target).sum().backward()
    moon(moving, target, previous_BE=previous, temperature=0.5).sum().backward()
    masked_smooth_l1(moving, target).sum().backward()
    assert target.grad is None
    assert previous.grad is None
    assert moving.grad.abs().sum() > 0


def test_a_zero_embedding_or_target_makes_nothing_infinite():
    moving = torch.zeros(2, 4, requires_grad=True)
    for target in (draw(2, 4), torch.zeros(2, 4)):
        cosine_distillation(moving, target).sum().backward()
    assert torch.isfinite(moving.grad).all()


def test_moon_equals_its_formula_and_ln_2():
    z, zg, zp = draw(5, 4), draw(5, 4, seed=1), draw(5, 4, seed=2)
    up, down = (torch.exp(cosine_similarity(z, other) / 0.5) for other in (zg, zp))
    found = moon(z, zg, previous_BE=zp, temperature=0.5)
    assert torch.allclose(found, -torch.log(up / (up + down)))
    assert torch.allclose(
        moon(z, zg, previous_BE=zg, temperature=0.5), torch.full((5,), math.log(2), dtype=torch.float64)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_formats_and_a_tiny_temperature_stay_finite(dtype):
    z, zg, zp = (draw(5, 4, seed=seed).to(dtype) for seed in range(3))
    z.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = moon(z, zg, previous_BE=zp, temperature=1e-4) + cosine_distillation(z, zg)
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(z.grad).all()
    assert torch.equal(cosine_distillation(z, zg), cosine_distillation(z.float(), zg.float()))


def test_missing_phenotypes_count_for_nothing():
    predicted = draw(3, 4).float().requires_grad_()
    target = draw(3, 4, seed=1).float()
    target[0, 1] = target[0, 3] = float("nan")
    target[2] = float("nan")
    found = masked_smooth_l1(predicted, target)
    assert found[0].item() == pytest.approx(
        smooth_l1_loss(predicted[0, [0, 2]], target[0, [0, 2]]).item(), abs=1e-6
    )
    assert found[1].item() == pytest.approx(smooth_l1_loss(predicted[1], target[1]).item(), abs=1e-6)
    assert found[2].item() == 0.0
    found.sum().backward()
    assert torch.equal(predicted.grad == 0, torch.isnan(target))
