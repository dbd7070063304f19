"""Moments on the wire: sums that add up over sites to the moments of all rows."""

from __future__ import annotations

import numpy as np
import torch

from cardionets_core.evaluation import add_sums
from cardionets_core.losses import Moments, batch_moments, dcco_loss
from cardionets_core.tasks.moment_sums import moment_sums, moments_from_sums

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_added_sums_are_the_moments_of_all_rows():
    f, g = draw(30, 4).requires_grad_(), draw(30, 4, seed=1)
    cuts = {"a": slice(0, 7), "b": slice(7, 7), "c": slice(7, 30)}
    total = add_sums({site: moment_sums(batch_moments(f[cut], g[cut])) for site, cut in cuts.items()})
    found, expected = moments_from_sums(total, device=CPU), batch_moments(f, g)
    for name in Moments.__slots__:
        assert torch.allclose(getattr(found, name), getattr(expected, name).detach(), rtol=1e-12, atol=1e-12)
        assert not getattr(found, name).requires_grad
    assert dcco_loss(found).item() == dcco_loss(expected).item()


def test_sums_are_raw_sums_in_float64():
    f, g = draw(9, 2), draw(9, 2, seed=1)
    sums = moment_sums(batch_moments(f, g))
    wide_f, wide_g = f.double().numpy(), g.double().numpy()
    expected = {
        "n": np.array([9.0]),
        "Sf": wide_f.sum(axis=0),
        "Sg": wide_g.sum(axis=0),
        "Sff": (wide_f**2).sum(axis=0),
        "Sgg": (wide_g**2).sum(axis=0),
        "Sfg": wide_f.T @ wide_g,
    }
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        assert sums[name].dtype == np.float64
        assert np.allclose(sums[name], value, rtol=1e-13)


def test_no_row_anywhere_is_zero_moments():
    empty = moments_from_sums(moment_sums(batch_moments(draw(0, 3), draw(0, 3))), device=CPU)
    assert float(empty.n) == 0.0
    assert torch.isfinite(dcco_loss(empty))
