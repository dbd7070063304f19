"""The sigmoid loss against a naive loop, its limits and its learned scale and bias."""

from __future__ import annotations

import math

import pytest
import torch

from cardionets_core.losses import sigmoid_loss
from cardionets_core.losses.sigmoid import INITIAL_BIAS, INITIAL_SCALE


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_loss_and_gradient_equal_the_naive_loop():
    ecg, cmr = draw(5, 4).requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    scale, bias = number(INITIAL_SCALE), number(INITIAL_BIAS)
    patient = [0, 1, 1, 2, 3]
    same = torch.tensor(patient)[:, None] == torch.tensor(patient)[None, :]
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            if i != j and patient[i] == patient[j]:
                continue
            s = (ecg[i] * cmr[j]).sum() / (ecg[i].norm() * cmr[j].norm())
            y = 1.0 if i == j else -1.0
            expected = expected + torch.log1p(torch.exp(-y * (scale * s + bias))) / 5
    found = sigmoid_loss(ecg, cmr, scale=scale, bias=bias, same_patient_BB=same)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    leaves = (ecg, cmr, scale, bias)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_exchanging_the_towers_changes_nothing():
    ecg, cmr = draw(6, 4), draw(6, 4, seed=1)
    forth = sigmoid_loss(ecg, cmr, scale=number(10), bias=number(-10))
    back = sigmoid_loss(cmr, ecg, scale=number(10), bias=number(-10))
    assert torch.allclose(forth, back, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_undecided_pairs_cost_ln_2_each(rows):
    loss = sigmoid_loss(draw(rows, 4), draw(rows, 4, seed=1), scale=number(0.0), bias=number(0.0))
    assert loss.item() == pytest.approx(rows * math.log(2), abs=1e-12)


def test_a_perfect_batch_costs_nothing():
    axes = torch.eye(4, dtype=torch.float64)
    assert sigmoid_loss(axes, axes, scale=number(1e3), bias=number(-5e2)).item() < 1e-12


def test_pairs_left_out_have_no_gradient():
    ecg, cmr = draw(2, 4).requires_grad_(), draw(2, 4, seed=1)
    everybody = torch.ones(2, 2, dtype=torch.bool)
    masked = sigmoid_loss(ecg, cmr, scale=number(10), bias=number(-10), same_patient_BB=everybody)
    alone = sum(
        sigmoid_loss(ecg[i : i + 1], cmr[i : i + 1], scale=number(10), bias=number(-10)) for i in range(2)
    )
    assert torch.allclose(masked, alone / 2, atol=1e-12)
    assert torch.allclose(
        torch.autograd.grad(masked, ecg)[0], torch.autograd.grad(alone / 2, ecg)[0], atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1e5])
def test_narrow_inputs_and_extreme_scales_stay_finite(dtype, scale):
    ecg = draw(6, 4).to(dtype).requires_grad_()
    cmr = draw(6, 4, seed=1).to(dtype)
    a, b = torch.tensor([scale], requires_grad=True), torch.tensor([-scale], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sigmoid_loss(ecg, cmr, scale=a, bias=b)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, sigmoid_loss(ecg.float(), cmr.float(), scale=a, bias=b))
    loss.backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (ecg, a, b))
