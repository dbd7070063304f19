"""InfoNCE against a naive loop, its gradient, capped banks and narrow number formats (SCIENCE 8.2)."""

from __future__ import annotations

import math

import pytest
import torch

from cardionets_core.losses import bank_info_nce, info_nce
from cardionets_core.losses.contrastive import cap_correction


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def naive_bank_loss(ecg, cmr, bank, same_bank, same_batch, temperature, factor):
    """Exponentials and loops, as the formula is written."""
    total = torch.zeros((), dtype=torch.float64)
    rows = range(len(ecg))
    for i in rows:
        own = torch.exp(cosine(ecg[i], cmr[i]) / temperature)
        forth = own
        for k in range(len(bank)):
            if not same_bank[i, k]:
                forth = forth + factor * torch.exp(cosine(ecg[i], bank[k]) / temperature)
        back = own
        for j in rows:
            if j != i and not same_batch[i, j]:
                back = back + torch.exp(cosine(ecg[j], cmr[i]) / temperature)
        total = total - torch.log(own / forth) - torch.log(own / back)
    return total / (2 * len(ecg))


def test_bank_loss_and_gradient_equal_the_naive_loop():
    leaves = [draw(4, 5).requires_grad_(), draw(4, 5, seed=1).requires_grad_(), draw(9, 5, seed=2)]
    leaves[2].requires_grad_()
    patient = torch.tensor([0, 1, 1, 2])
    bank_patient = torch.tensor([0, 1, 1, 2, 3, 4, 5, 5, 0])
    same_bank = patient[:, None] == bank_patient[None, :]
    same_batch = patient[:, None] == patient[None, :]
    found = bank_info_nce(
        leaves[0],
        leaves[1],
        bank_NE=leaves[2],
        same_patient_BN=same_bank,
        same_patient_BB=same_batch,
        temperature=0.3,
        drawn_from=33,
    )
    expected = naive_bank_loss(*leaves, same_bank, same_batch, 0.3, 32 / 8)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_batch_gradient_equals_the_naive_loop():
    ecg, cmr = draw(5, 3).requires_grad_(), draw(5, 3, seed=1).requires_grad_()
    nobody = torch.eye(5, dtype=torch.bool)
    found = info_nce(ecg, cmr, temperature=0.2)
    expected = naive_bank_loss(ecg, cmr, cmr, nobody, nobody, 0.2, 1.0)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for leaf in (ecg, cmr):
        mine, theirs = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (found, expected))
        assert torch.allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize(("kept", "entries"), [(5, 5), (5, 40), (2, 1000)])
def test_a_capped_bank_gives_the_full_bank_s_value_at_equal_logits(kept, entries):
    same = torch.ones(kept, 4)
    own = torch.zeros(1, kept, dtype=torch.bool)
    own[0, 0] = True
    loss = bank_info_nce(
        same[:1], same[:1], bank_NE=same, same_patient_BN=own, temperature=0.05, drawn_from=entries
    )
    assert float(loss) == pytest.approx((math.log(entries) + math.log(1)) / 2, abs=1e-6)


def test_a_capped_bank_is_unbiased_enough():
    ecg, bank = draw(1, 8), draw(2001, 8, seed=1)
    mask = torch.zeros(1, 2001, dtype=torch.bool)
    mask[0, 0] = True
    full = bank_info_nce(ecg, bank[:1], bank_NE=bank, same_patient_BN=mask, temperature=0.5)
    capped = bank_info_nce(
        ecg, bank[:1], bank_NE=bank[:801], same_patient_BN=mask[:, :801], temperature=0.5, drawn_from=2001
    )
    uncorrected = bank_info_nce(
        ecg, bank[:1], bank_NE=bank[:801], same_patient_BN=mask[:, :801], temperature=0.5
    )
    assert abs(float(capped - full)) < 0.05 < abs(float(uncorrected - full))


@pytest.mark.parametrize(("entries", "drawn_from"), [(5, 4), (1, 2), (0, 3)])
def test_an_impossible_cap_is_refused(entries, drawn_from):
    with pytest.raises(ValueError, match="cannot stand"):
        cap_correction(entries, drawn_from)
    assert cap_correction(entries, None) == cap_correction(entries, entries) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1e-4, 0.05, 1e3])
def test_narrow_inputs_are_computed_in_fp32(dtype, temperature):
    ecg, cmr = (draw(16, 8, seed=seed).to(dtype).requires_grad_() for seed in (0, 1))
    wide = info_nce(ecg.detach().float(), cmr.detach().float(), temperature=temperature)
    narrow = info_nce(ecg, cmr, temperature=temperature)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, wide)
    narrow.backward()
    assert torch.isfinite(ecg.grad).all() and torch.isfinite(cmr.grad).all()


def test_autocast_does_not_narrow_the_cosines():
    ecg, cmr = draw(16, 8).float(), draw(16, 8, seed=1).float()
    own = torch.eye(16, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (ecg @ cmr.T).dtype == torch.bfloat16
        inside = info_nce(ecg, cmr, temperature=0.05)
        banked = bank_info_nce(ecg, cmr, bank_NE=cmr, same_patient_BN=own, temperature=0.05)
    assert torch.equal(inside, info_nce(ecg, cmr, temperature=0.05))
    assert torch.equal(banked, bank_info_nce(ecg, cmr, bank_NE=cmr, same_patient_BN=own, temperature=0.05))


def test_a_learned_temperature_gets_its_gradient():
    ecg, cmr = draw(6, 4), draw(6, 4, seed=1)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: info_nce(ecg, cmr, temperature=t), (temperature,))


def test_each_half_of_the_loss_couples_the_rows():
    """The gradient of a mean of B terms of one row each would not change with the other rows."""
    ecg, cmr = draw(4, 5).requires_grad_(), draw(4, 5, seed=1)
    all_rows = torch.autograd.grad(4 * info_nce(ecg, cmr, temperature=0.2), ecg)[0][:2]
    two_rows = torch.autograd.grad(2 * info_nce(ecg[:2], cmr[:2], temperature=0.2), ecg)[0][:2]
    assert not torch.allclose(all_rows, two_rows, atol=1e-3)
