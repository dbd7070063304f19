"""Closed forms and limits of the losses (SCIENCE 8.2)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.losses import bank_info_nce, info_nce, masked_correlation, masked_squared_error


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(rows=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_info_nce_is_ln_b_at_equal_logits(rows):
    same = torch.ones(rows, 4)
    assert float(info_nce(same, same, temperature=0.05)) == pytest.approx(math.log(rows), abs=1e-6)


def test_info_nce_is_symmetric_and_ignores_scale():
    ecg, cmr = draw(9, 5), draw(9, 5, seed=1)
    loss = info_nce(ecg, cmr, temperature=0.05)
    assert torch.allclose(loss, info_nce(cmr, ecg, temperature=0.05))
    assert torch.allclose(loss, info_nce(7.0 * ecg, 0.1 * cmr, temperature=0.05), atol=1e-5)


def test_info_nce_equals_its_formula():
    ecg, cmr = draw(6, 5).double().numpy(), draw(6, 5, seed=1).double().numpy()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ecg, cmr)]
    s = unit[0] @ unit[1].T / 0.2
    formula = np.mean(
        [np.log(np.exp(s[i]).sum()) + np.log(np.exp(s[:, i]).sum()) - 2 * s[i, i] for i in range(6)]
    )
    found = info_nce(torch.tensor(ecg), torch.tensor(cmr), temperature=0.2)
    assert float(found) == pytest.approx(formula / 2, abs=1e-6)


def test_half_precision_does_not_overflow():
    ecg = draw(16, 8).half()
    assert torch.isfinite(info_nce(ecg, ecg, temperature=0.05))


@pytest.mark.parametrize(("rows", "entries"), [(4, 4), (4, 50), (1, 10)])
def test_bank_is_half_ln_n_plus_ln_b_at_equal_logits(rows, entries):
    same = torch.ones(max(rows, entries), 4)
    own = torch.arange(rows)[:, None] == torch.arange(entries)[None, :]
    loss = bank_info_nce(
        same[:rows], same[:rows], bank_NE=same[:entries], same_patient_BN=own, temperature=0.05
    )
    assert float(loss) == pytest.approx((math.log(entries) + math.log(rows)) / 2, abs=1e-6)


def test_bank_of_exactly_the_batch_is_plain_info_nce():
    ecg, cmr = draw(9, 5), draw(9, 5, seed=1)
    own = torch.eye(9, dtype=torch.bool)
    banked = bank_info_nce(ecg, cmr, bank_NE=cmr, same_patient_BN=own, temperature=0.1)
    assert torch.allclose(banked, info_nce(ecg, cmr, temperature=0.1), atol=1e-6)


def test_entries_of_the_same_patient_are_no_negatives():
    ecg, cmr, bank = draw(4, 5), draw(4, 5, seed=1), draw(12, 5, seed=2)
    patient = torch.arange(12) % 6
    same = torch.arange(4)[:, None] == patient[None, :]
    loss = bank_info_nce(ecg, cmr, bank_NE=bank, same_patient_BN=same, temperature=0.1)
    moved = bank.clone()
    moved[[0, 6]] += 100.0 * draw(2, 5, seed=3)
    rows_of_others = bank_info_nce(ecg[:1], cmr[:1], bank_NE=moved, same_patient_BN=same[:1], temperature=0.1)
    before = bank_info_nce(ecg[:1], cmr[:1], bank_NE=bank, same_patient_BN=same[:1], temperature=0.1)
    assert torch.equal(rows_of_others, before)
    assert not torch.equal(
        loss, bank_info_nce(ecg, cmr, bank_NE=moved, same_patient_BN=same, temperature=0.1)
    )
    twice = torch.tensor([[True, True], [True, True]])
    assert float(info_nce(ecg[:2], cmr[:2], temperature=0.1, same_patient_BB=twice)) == pytest.approx(0.0)


def test_the_bank_moves_the_gradient_and_receives_its_own():
    ecg, cmr = draw(4, 5).requires_grad_(), draw(4, 5, seed=1).requires_grad_()
    bank = draw(20, 5, seed=2).requires_grad_()
    same = torch.arange(4)[:, None] == torch.arange(20)[None, :]
    bank_info_nce(ecg, cmr, bank_NE=bank, same_patient_BN=same, temperature=0.1).backward()
    assert ecg.grad.abs().sum() > 0
    assert cmr.grad.abs().sum() > 0
    # Entry 0 is masked for row 0 only, so that it is still a negative of rows 1 to 3.
    assert (bank.grad.abs().sum(dim=1) > 0).all()
    plain = torch.autograd.grad(info_nce(ecg, cmr, temperature=0.1), ecg)[0]
    assert not torch.allclose(plain, ecg.grad)


def test_squared_error_counts_hidden_patches_only():
    target = torch.zeros(2, 3, 4)
    predicted = torch.zeros(2, 3, 4)
    predicted[0, 1] = 2.0
    predicted[1, 0] = 50.0
    hidden = torch.tensor([[1, 2], [1, 2]])
    assert masked_squared_error(predicted, target, hidden=hidden).tolist() == [2.0, 0.0]


@given(rows=st.integers(0, 4), leads=st.integers(1, 3), hidden=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_squared_error_has_one_value_a_row(rows, leads, hidden):
    target = draw(rows, leads, 5, 7)
    index = torch.arange(hidden).expand(rows, leads, hidden)
    found = masked_squared_error(target + 3.0, target, hidden=index)
    assert found.shape == (rows,)
    assert torch.allclose(found, torch.full((rows,), 9.0), atol=1e-4)


def test_correlation_is_that_of_the_hidden_values():
    target, predicted = draw(2, 6, 5), draw(2, 6, 5, seed=1)
    hidden = torch.tensor([[0, 2, 4], [1, 2, 3]])
    found = masked_correlation(predicted, target, hidden=hidden)
    for row in range(2):
        pair = np.corrcoef(predicted[row, hidden[row]].flatten(), target[row, hidden[row]].flatten())
        assert float(found[row]) == pytest.approx(pair[0, 1], abs=1e-6)
    assert float(masked_correlation(torch.ones(1, 6, 5), target[:1], hidden=hidden[:1])) == 0.0
