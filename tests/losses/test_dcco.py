"""Cross-correlation from shared moments: numpy's, and sites that give the pooled step (SCIENCE 8.7)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cardionets_core.losses import (
    Moments,
    batch_moments,
    cosine_distillation,
    cross_correlation,
    dcco_loss,
    info_nce,
    pool_moments,
    share_moments,
)

SIZES = [5, 9, 20]
TOTAL = sum(SIZES)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Towers(nn.Module):
    """A trained ECG tower and two projections; the cine's feature is frozen."""

    def __init__(self, *, dead: bool = False) -> None:
        super().__init__()
        self.ecg = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 4))
        self.cmr = nn.Linear(7, 4)
        with torch.no_grad():
            for seed, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * draw(*parameter.shape, seed=seed))
            if dead:
                self.ecg[2].weight[1] = 0.0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.ecg(x), self.cmr(y)


def gradients(model: nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def federated_gradients(model: nn.Module, x, y, client_loss) -> list[torch.Tensor]:
    total = [torch.zeros_like(p) for p in model.parameters()]
    for rows_x, rows_y in zip(x.split(SIZES), y.split(SIZES), strict=True):
        for place, part in enumerate(gradients(model, client_loss(*model(rows_x, rows_y)))):
            total[place] = total[place] + len(rows_x) / TOTAL * part
    return total


def shared_total(model: nn.Module, x, y) -> Moments:
    with torch.no_grad():
        return pool_moments(
            [batch_moments(*model(a, b)) for a, b in zip(x.split(SIZES), y.split(SIZES), strict=True)]
        )


def close(first, second, tolerance=1e-6) -> bool:
    scale = max(float(g.abs().max()) for g in second)
    return all(float((a - b).abs().max()) <= tolerance * scale for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "a constant component"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weighted_client_gradients_equal_the_pooled_gradient(dead, dtype):
    model = Towers(dead=dead).to(dtype)
    x, y = draw(TOTAL, 6, seed=10).to(dtype), draw(TOTAL, 7, seed=11).to(dtype)
    x[:5] += 2.0  # a site effect: within-site moments differ from pooled ones
    pooled = gradients(model, dcco_loss(batch_moments(*model(x, y))))
    total = shared_total(model, x, y)
    shared = federated_gradients(
        model, x, y, lambda f, g: dcco_loss(share_moments(batch_moments(f, g), total))
    )
    assert all(torch.isfinite(g).all() for g in pooled)
    assert close(shared, pooled)
    unshared = federated_gradients(model, x, y, lambda f, g: dcco_loss(batch_moments(f, g)))
    assert not close(unshared, pooled, 1e-2), "without sharing it is another loss"


def test_one_sgd_step_of_all_sites_is_the_pooled_step():
    x, y = draw(TOTAL, 6, seed=10), draw(TOTAL, 7, seed=11)
    start = Towers().double()

    def step(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        loss.backward()
        optimiser.step()
        return model.state_dict()

    central = copy.deepcopy(start)
    pooled = step(central, dcco_loss(batch_moments(*central(x, y))))
    total = shared_total(start, x, y)
    average = {name: torch.zeros_like(value) for name, value in pooled.items()}
    for a, b in zip(x.split(SIZES), y.split(SIZES), strict=True):
        site = copy.deepcopy(start)
        for name, value in step(site, dcco_loss(share_moments(batch_moments(*site(a, b)), total))).items():
            average[name] += len(a) / TOTAL * value
    for name, value in pooled.items():
        assert torch.allclose(average[name], value, atol=1e-6, rtol=0)
        if name.endswith("weight"):  # a last layer's bias shifts the embedding, which K does not see
            assert not torch.allclose(start.state_dict()[name], value, atol=1e-4)


def test_plain_info_nce_differs_and_cosine_does_not():
    model = Towers().double()
    x, y = draw(TOTAL, 6, seed=10), draw(TOTAL, 7, seed=11)

    def contrast(f, g):
        return info_nce(f, g, temperature=0.1)

    def distil(f, g):
        return cosine_distillation(f, g).mean() + 0.0 * g.sum()

    assert not close(
        federated_gradients(model, x, y, contrast), gradients(model, contrast(*model(x, y))), 1e-2
    )
    assert close(federated_gradients(model, x, y, distil), gradients(model, distil(*model(x, y))))


def test_correlation_is_numpy_s():
    f, g = draw(30, 3).numpy(), 5.0 + draw(30, 3, seed=1).numpy()
    expected = np.corrcoef(f.T, g.T)[:3, 3:]
    moments = batch_moments(torch.tensor(f), torch.tensor(g))
    assert np.allclose(cross_correlation(moments, floor=0.0).numpy(), expected, atol=1e-12)
    loss = sum((1 - expected[i, i]) ** 2 for i in range(3))
    loss += 5e-3 * sum(expected[i, j] ** 2 for i in range(3) for j in range(3) if i != j)
    assert float(dcco_loss(moments, floor=0.0)) == pytest.approx(loss, abs=1e-6)


def test_loss_and_gradient_equal_a_naive_loop():
    f, g = draw(8, 3).requires_grad_(), draw(8, 3, seed=1).requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            a, b = f[:, i] - f[:, i].mean(), g[:, j] - g[:, j].mean()
            k = (a * b).mean() / ((a.square().mean() + 1e-5) * (b.square().mean() + 1e-5)).sqrt()
            expected = expected + ((1 - k) ** 2 if i == j else 5e-3 * k**2)
    found = dcco_loss(batch_moments(f, g))
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    for leaf in (f, g):
        mine, theirs = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (found, expected))
        assert torch.allclose(mine, theirs, atol=1e-7)


def test_gradient_equals_finite_differences():
    g = draw(6, 2, seed=1)

    def value(f):
        # float64 to the end: the loss itself is rounded to float32.
        k = cross_correlation(batch_moments(f, g))
        return (1 - k.diagonal()).square().sum()

    assert torch.autograd.gradcheck(value, (draw(6, 2).requires_grad_(),))


def test_shared_moments_have_the_value_and_the_rows_of_the_total():
    g, total = draw(6, 2, seed=1), batch_moments(draw(40, 2, seed=2), draw(40, 2, seed=3))
    shared = share_moments(batch_moments(draw(6, 2), g), total)
    assert float(dcco_loss(shared)) == pytest.approx(float(dcco_loss(total)), abs=1e-6)
    assert float(shared.n) == 40.0


def test_limits_of_the_correlation():
    f = draw(50, 4)
    # Uncorrelated columns: K is the identity for identical towers.
    f = torch.linalg.qr(f - f.mean(dim=0)).Q * 7.0
    assert float(dcco_loss(batch_moments(f, f))) == pytest.approx(0.0, abs=1e-6)
    assert float(dcco_loss(batch_moments(f, -f))) == pytest.approx(16.0, abs=1e-2)
    constant = batch_moments(torch.full((50, 4), 3.7).requires_grad_(), f)
    assert dcco_loss(constant).item() == pytest.approx(4.0, abs=1e-6)


def test_exchanging_the_towers_changes_nothing():
    f, g = draw(20, 3), draw(20, 3, seed=1)
    first, second = dcco_loss(batch_moments(f, g)), dcco_loss(batch_moments(g, f))
    assert torch.allclose(first, second, atol=1e-7)


def test_pooled_moments_are_those_of_all_rows_and_an_empty_site_adds_nothing():
    f, g = draw(TOTAL, 3), draw(TOTAL, 3, seed=1)
    parts = [batch_moments(a, b) for a, b in zip(f.split(SIZES), g.split(SIZES), strict=True)]
    empty = batch_moments(f[:0], g[:0])
    pooled, expected = pool_moments([*parts, empty]), batch_moments(f, g)
    for name in Moments.__slots__:
        assert torch.allclose(getattr(pooled, name), getattr(expected, name), atol=1e-12)
    assert float(pool_moments([empty]).f_E.abs().sum()) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_moments_are_float64_under_autocast(dtype):
    f, g = draw(20, 3).to(dtype), draw(20, 3, seed=1).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = batch_moments(f, g)
        loss = dcco_loss(inside)
    assert inside.fg_EE.dtype == torch.float64
    assert torch.equal(loss, dcco_loss(batch_moments(f.double(), g.double())))


def test_a_large_mean_costs_no_digits():
    f, g = draw(40, 3), draw(40, 3, seed=1)
    near, far = dcco_loss(batch_moments(f, g)), dcco_loss(batch_moments(f + 300.0, g - 300.0))
    assert float(near) == pytest.approx(float(far), abs=1e-5)
