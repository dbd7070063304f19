"""Closed forms and limits of the tokenizer's losses (SCIENCE section 4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cardionets_core.losses import adaptive_weight, discriminator_hinge, generator_hinge, tokenizer_loss
from cardionets_core.losses.tokenizer import kl_to_standard, peak_excess


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_is_that_of_gaussians_and_zero_at_the_standard_normal():
    mean, log_variance = normal(3, 2, 2, 3, 3), normal(3, 2, 2, 3, 3, seed=1)
    reference = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    assert torch.allclose(kl_to_standard(mean, log_variance), reference.sum(dim=(1, 2, 3, 4)), rtol=1e-5)
    assert not kl_to_standard(torch.zeros(2, 4), torch.zeros(2, 4)).any()


def test_peaks_equal_numpy_and_are_measured_on_each_frame():
    made = normal(2, 3, 16, 16) ** 3
    frames = made.double().numpy()
    mean, deviation = frames.mean((2, 3), keepdims=True), frames.std((2, 3), keepdims=True)
    expected = np.maximum(frames - mean - 3 * deviation, 0).mean((1, 2, 3))
    assert np.allclose(peak_excess(made).numpy(), expected, rtol=1e-4)
    brighter = made + torch.tensor([0.0, 5.0, -3.0])[:, None, None]
    assert torch.allclose(peak_excess(brighter), peak_excess(made), atol=1e-5)


def test_a_flat_frame_has_no_peaks_and_a_finite_gradient():
    made = torch.zeros(1, 2, 4, 4, requires_grad=True)
    found = peak_excess(made)
    found.sum().backward()
    assert not found.any() and torch.isfinite(made.grad).all()


def test_the_loss_is_the_sum_of_its_parts_and_rows_are_independent():
    cine, made = normal(3, 4, 8, 8), normal(3, 4, 8, 8, seed=1)
    mean, log_variance = normal(3, 2, 2, 2, 2, seed=2), normal(3, 2, 2, 2, 2, seed=3)
    found = tokenizer_loss(made, cine, mean_BZTHW=mean, log_variance_BZTHW=log_variance)
    assert torch.allclose(found.l1_B, (cine - made).abs().mean(dim=(1, 2, 3)))
    assert torch.allclose(found.total_B, found.l1_B + 1e-6 * found.kl_B + found.peaks_B)
    alone = tokenizer_loss(made[1:2], cine[1:2], mean_BZTHW=mean[1:2], log_variance_BZTHW=log_variance[1:2])
    assert torch.allclose(alone.total_B[0], found.total_B[1])
    perfect = tokenizer_loss(
        cine.clamp(-1, 1), cine.clamp(-1, 1), mean_BZTHW=0 * mean, log_variance_BZTHW=0 * mean
    )
    assert not perfect.total_B.any()


def test_hinge_limits():
    assert float(discriminator_hinge(torch.full((3,), 2.0), torch.full((3,), -2.0))) == 0.0
    assert float(discriminator_hinge(torch.zeros(3), torch.zeros(3))) == 1.0
    assert float(generator_hinge(torch.tensor([1.0, 3.0]))) == -2.0


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    reconstruction = 10.0 * weight.sum()
    adversarial = (weight * torch.tensor([0.3, 0.4])).sum()
    found = adaptive_weight(reconstruction, adversarial, last_weight=weight)
    assert float(found) == pytest.approx(10.0 * 2**0.5 / 0.5, rel=1e-3)
    assert not found.requires_grad
    nothing = adaptive_weight(reconstruction, 0.0 * adversarial, last_weight=weight)
    assert float(nothing) == 1e4
    (reconstruction + found * adversarial).backward()
    first, second = torch.full((2,), 10.0), float(found) * torch.tensor([0.3, 0.4])
    assert torch.allclose(weight.grad, first + second)
    assert float(second.norm()) == pytest.approx(float(first.norm()), rel=1e-3), "both pull equally"
