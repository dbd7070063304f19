"""Losses of the heads: naive sums, masks without gradient, one term a row (SCIENCE 4, 8.20)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from cardionets_core.losses import disease_loss, phenotype_loss, subtype_loss

NAN = float("nan")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_phenotype_loss_is_the_mean_over_present_columns():
    predicted, target = draw(3, 4), draw(3, 4, seed=1)
    target[0, 1] = target[0, 3] = target[1, 0] = NAN
    target[2] = NAN
    found = phenotype_loss(predicted, target)
    for row in range(3):
        present = [j for j in range(4) if not math.isnan(target[row, j])]
        squares = [float(predicted[row, j] - target[row, j]) ** 2 for j in present]
        assert float(found[row]) == pytest.approx(sum(squares) / max(1, len(present)), rel=1e-6)
    assert found[2] == 0.0


def test_missing_phenotypes_have_exactly_no_gradient():
    predicted = draw(5, 4).requires_grad_()
    target = draw(5, 4, seed=1)
    target[:, 2] = NAN
    target[3] = NAN
    phenotype_loss(predicted, target).mean().backward()
    assert torch.isfinite(predicted.grad).all()
    assert not predicted.grad[:, 2].any()
    assert not predicted.grad[3].any()
    assert predicted.grad[[0, 1, 2, 4]][:, [0, 1, 3]].all()


def test_a_prediction_that_is_not_finite_is_harmless_where_nothing_is_known():
    predicted = torch.tensor([[1.0, NAN]], requires_grad=True)
    loss = phenotype_loss(predicted, torch.tensor([[3.0, NAN]]))
    loss.sum().backward()
    assert loss.tolist() == [4.0]
    assert predicted.grad.tolist() == [[-4.0, 0.0]]


def test_the_disease_loss_divides_by_all_diseases_not_by_the_known_ones():
    logit, label = draw(2, 5), torch.tensor([[1.0, 0.0, NAN, NAN, NAN], [NAN, 1.0, 1.0, 0.0, 0.0]])
    found = disease_loss(logit, label)
    for row in range(2):
        total = 0.0
        for d in range(5):
            if not math.isnan(label[row, d]):
                p = 1.0 / (1.0 + math.exp(-float(logit[row, d])))
                total -= math.log(p if label[row, d] == 1 else 1 - p)
        assert float(found[row]) == pytest.approx(total / 5, rel=1e-5)


def test_unknown_labels_have_exactly_no_gradient():
    logit = draw(4, 5).requires_grad_()
    label = (draw(4, 5, seed=1) > 0).float()
    label[:, 4] = label[2, 0] = NAN
    disease_loss(logit, label).mean().backward()
    assert (logit.grad != 0).tolist() == (~label.isnan()).tolist()


def test_with_the_prior_as_logit_the_gradient_vanishes_at_the_prevalence():
    """Logit adjustment: a head that says nothing is right, and stays so, if the prior is the prevalence."""
    label = torch.tensor([[1.0]] * 3 + [[0.0]] * 17)
    head = torch.zeros(1, requires_grad=True)
    disease_loss(head.expand(20, 1) + math.log(3 / 17), label).mean().backward()
    assert float(head.grad) == pytest.approx(0.0, abs=1e-7)


def test_the_subtype_loss_is_the_cross_entropy_of_known_rows():
    logit = draw(4, 3).requires_grad_()
    label = torch.eye(3)[torch.tensor([0, 2, 1, 0])]
    label[2] = NAN
    found = subtype_loss(logit, label)
    known = [0, 1, 3]
    expected = cross_entropy(logit[known], torch.tensor([0, 2, 0]), reduction="none")
    assert torch.allclose(found[known], expected)
    assert found[2] == 0.0
    found.sum().backward()
    assert not logit.grad[2].any()


@pytest.mark.parametrize("loss", [phenotype_loss, disease_loss, subtype_loss])
def test_losses_are_fp32_one_term_a_row_and_serve_per_sample_gradients(loss):
    weight, feature = draw(6, 3), draw(5, 6, seed=1)
    label = torch.eye(3)[torch.arange(5) % 3]
    label[1] = NAN
    assert loss((feature @ weight).bfloat16(), label).dtype == torch.float32

    def of_row(weight, feature_D, label_K):
        return loss((feature_D @ weight)[None], label_K[None])[0]

    per_row = torch.func.vmap(torch.func.grad(of_row), in_dims=(None, 0, 0))(weight, feature, label)
    pooled = torch.func.grad(lambda w: loss(feature @ w, label).mean())(weight)
    assert torch.allclose(per_row.mean(dim=0), pooled, atol=1e-6)
    assert not per_row[1].any()
    assert loss(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
