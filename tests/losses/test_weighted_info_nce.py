"""Weighted InfoNCE: limits, a naive loop, masks that remove exactly, weights of distances (SCIENCE 8.3)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.losses import (
    bank_info_nce,
    bank_weighted_info_nce,
    distance_weights,
    info_nce,
    weighted_info_nce,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def naive_loss(ecg, cmr, bank, weight_bank, weight_batch, temperature):
    """``weight_bank`` weighs all the bank's entries; the own cine comes on top."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(ecg)):
        own = torch.exp(cosine(ecg[i], cmr[i]) / temperature)
        forth, back = own, own
        for k in range(len(bank)):
            forth = forth + weight_bank[i, k] * torch.exp(cosine(ecg[i], bank[k]) / temperature)
        for k in range(len(ecg)):
            if k != i:
                back = back + weight_batch[i, k] * torch.exp(cosine(ecg[k], cmr[i]) / temperature)
        total = total + torch.log(forth) + torch.log(back) - 2 * torch.log(own)
    return total / (2 * len(ecg))


def symmetric_weights(rows: int, seed: int = 0) -> torch.Tensor:
    weight = uniform(rows, rows, seed=seed)
    return (weight + weight.T) / 2


@given(rows=st.integers(1, 12), temperature=st.sampled_from([1e-3, 0.05, 1.0, 50.0]))
@settings(max_examples=15, deadline=None)
def test_all_weights_one_is_plain_info_nce(rows, temperature):
    ecg, cmr = draw(rows, 5, seed=rows).float(), draw(rows, 5, seed=rows + 50).float()
    loss = weighted_info_nce(ecg, cmr, weight_BB=torch.ones(rows, rows), temperature=temperature)
    assert torch.equal(loss, info_nce(ecg, cmr, temperature=temperature))


def test_all_weights_zero_is_no_contrast_at_all():
    ecg = draw(5, 4).requires_grad_()
    loss = weighted_info_nce(ecg, draw(5, 4, seed=1), weight_BB=torch.zeros(5, 5), temperature=0.05)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(ecg.grad, torch.zeros(5, 4, dtype=torch.float64))


def test_equal_logits_give_the_logarithm_of_the_weights():
    same, weight = torch.ones(6, 3), symmetric_weights(6)
    loss = weighted_info_nce(same, same, weight_BB=weight, temperature=0.05)
    counted = 1.0 + weight.sum(dim=1) - weight.diagonal()
    assert float(loss) == pytest.approx(float(counted.log().mean()), abs=1e-6)


def test_loss_and_gradient_equal_the_naive_loop():
    ecg, cmr = draw(5, 4).requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    bank = draw(7, 4, seed=2).requires_grad_()
    weight_batch, weight_bank = symmetric_weights(5), uniform(5, 7, seed=1)
    weight_batch[1, 3] = weight_batch[3, 1] = 0.0
    weight_bank[0, 2] = weight_bank[4, 6] = 0.0
    batch_only = weight_batch.clone().fill_diagonal_(0.0)
    pairs = [
        (
            weighted_info_nce(ecg, cmr, weight_BB=weight_batch, temperature=0.3),
            naive_loss(ecg, cmr, cmr, batch_only, weight_batch, 0.3),
            (ecg, cmr),
        ),
        (
            bank_weighted_info_nce(
                ecg, cmr, bank_NE=bank, weight_BN=weight_bank, weight_BB=weight_batch, temperature=0.3
            ),
            naive_loss(ecg, cmr, bank, weight_bank, weight_batch, 0.3),
            (ecg, cmr, bank),
        ),
    ]
    for found, expected, leaves in pairs:
        assert found.item() == pytest.approx(expected.item(), abs=1e-12)
        for mine, theirs in zip(
            torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
        ):
            assert torch.allclose(mine, theirs, atol=1e-12)


def test_exchanging_the_towers_changes_nothing():
    ecg, cmr, weight = draw(7, 4), draw(7, 4, seed=1), symmetric_weights(7)
    forth = weighted_info_nce(ecg, cmr, weight_BB=weight, temperature=0.1)
    back = weighted_info_nce(cmr, ecg, weight_BB=weight, temperature=0.1)
    assert torch.allclose(forth, back, atol=1e-12)


def test_a_weight_of_zero_removes_the_sample_exactly():
    ecg, cmr = draw(4, 5).requires_grad_(), draw(4, 5, seed=1).requires_grad_()
    weight = torch.ones(4, 4)
    weight[3, :3] = weight[:3, 3] = 0.0
    loss = weighted_info_nce(ecg, cmr, weight_BB=weight, temperature=0.1)
    loss.backward()
    # Row 3 has no negatives left: its terms are 0, and the others see three rows.
    short = info_nce(ecg[:3], cmr[:3], temperature=0.1)
    assert float(4 * loss.detach()) == pytest.approx(float(3 * short.detach()), abs=1e-12)
    assert torch.equal(ecg.grad[3], torch.zeros(5, dtype=torch.float64))
    assert torch.equal(cmr.grad[3], torch.zeros(5, dtype=torch.float64))
    expected = torch.autograd.grad(0.75 * short, ecg)[0][:3]
    assert torch.allclose(ecg.grad[:3], expected, atol=1e-12)


def test_a_removed_entry_of_the_bank_may_be_anything():
    ecg, cmr, bank = draw(3, 5), draw(3, 5, seed=1), draw(8, 5, seed=2)
    weight = uniform(3, 8)
    weight[:, 5] = 0.0
    moved = bank.clone()
    moved[5] = 1e3 * draw(5, seed=9)

    def loss(entries, weights):
        return bank_weighted_info_nce(
            ecg, cmr, bank_NE=entries, weight_BN=weights, weight_BB=torch.ones(3, 3), temperature=0.05
        )

    kept = [k for k in range(8) if k != 5]
    assert torch.equal(loss(bank, weight), loss(moved, weight))
    assert torch.allclose(loss(bank, weight), loss(bank[kept], weight[:, kept]), atol=1e-12)


def test_the_weighted_bank_has_the_limits_of_the_plain_one():
    ecg, cmr, bank = draw(4, 5), draw(4, 5, seed=1), draw(9, 5, seed=2)
    same = torch.arange(4)[:, None] == torch.arange(9)[None, :]
    loss = bank_weighted_info_nce(
        ecg,
        cmr,
        bank_NE=bank,
        weight_BN=(~same).double(),
        weight_BB=torch.ones(4, 4),
        temperature=0.1,
        drawn_from=50,
    )
    plain = bank_info_nce(ecg, cmr, bank_NE=bank, same_patient_BN=same, temperature=0.1, drawn_from=50)
    assert torch.allclose(loss, plain, atol=1e-12)

    weight = symmetric_weights(4)
    batch = bank_weighted_info_nce(
        ecg,
        cmr,
        bank_NE=cmr,
        weight_BN=weight.clone().fill_diagonal_(0.0),
        weight_BB=weight,
        temperature=0.1,
    )
    assert torch.allclose(batch, weighted_info_nce(ecg, cmr, weight_BB=weight, temperature=0.1), atol=1e-12)

    ones = torch.ones(9, 3)
    equal = bank_weighted_info_nce(
        ones[:4],
        ones[:4],
        bank_NE=ones,
        weight_BN=(~same).float(),
        weight_BB=torch.ones(4, 4),
        temperature=0.05,
    )
    assert float(equal) == pytest.approx((math.log(9) + math.log(4)) / 2, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1e-4, 0.05, 1e3])
def test_extreme_temperatures_and_weights_stay_finite(dtype, temperature):
    ecg, cmr, bank = (draw(rows, 8, seed=rows).to(dtype).requires_grad_() for rows in (6, 6, 20))
    cmr = draw(6, 8, seed=4).to(dtype).requires_grad_()
    weight = torch.tensor([0.0, 1e-30, 1.0]).repeat(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = bank_weighted_info_nce(
            ecg,
            cmr,
            bank_NE=bank,
            weight_BN=weight.reshape(6, 20),
            weight_BB=weight[:36].reshape(6, 6),
            temperature=temperature,
        )
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(leaf.grad).all() for leaf in (ecg, cmr, bank))


def test_weights_equal_their_formula():
    here, there = draw(5, 3).numpy(), draw(7, 3, seed=1).numpy()
    square = ((here[:, None] - there[None]) ** 2).sum(axis=2)
    found = distance_weights(torch.tensor(here), torch.tensor(there), sigma=0.7)
    assert np.allclose(found.numpy(), 1 - np.exp(-square / 0.49), atol=1e-6)


@given(scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e18]), rows=st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_weights_stay_in_their_range_far_from_the_origin(scale, rows):
    # Expanding the square of positions at 1e4 would give negative distances of nearly equal hearts.
    phi = 1e4 + scale * draw(rows, 4, seed=3).float()
    weight = distance_weights(phi, phi, sigma=0.5)
    assert weight.shape == (rows, rows)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert torch.equal(weight.diagonal(), torch.zeros(rows))
    assert torch.equal(weight, weight.T)


def test_limits_of_sigma_and_of_distance():
    phi = torch.tensor([[0.0], [1e-4], [100.0]])
    weight = distance_weights(phi, phi, sigma=1.0)
    assert float(weight[0, 1]) == pytest.approx(1e-8, rel=1e-5), "small distances keep their digits"
    assert float(weight[0, 2]) == 1.0
    assert torch.equal(distance_weights(phi, phi, sigma=1e-8), 1.0 - torch.eye(3))
    with pytest.raises(ValueError, match="sigma"):
        distance_weights(phi, phi, sigma=0.0)


def test_the_same_patient_weighs_nothing_and_weights_have_no_gradient():
    phi = draw(4, 3).requires_grad_()
    same = torch.tensor([0, 1, 1, 2])[:, None] == torch.tensor([0, 1, 1, 2])[None, :]
    weight = distance_weights(phi, phi, sigma=1.0, same_patient_BN=same)
    assert not weight.requires_grad
    assert not weight[same].any()
    assert (weight[~same] > 0).all()
    ecg, cmr = draw(4, 5), draw(4, 5, seed=1)
    assert torch.allclose(
        weighted_info_nce(ecg, cmr, weight_BB=(~same).double(), temperature=0.1),
        info_nce(ecg, cmr, temperature=0.1, same_patient_BB=same),
        atol=1e-12,
    )
