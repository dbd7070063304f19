"""Integrated gradients: completeness, closed forms, the real encoder; similarity maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from cardionets_core.evaluation import integrated_gradients, lead_time_map, similarity_map
from cardionets_core.models import build_module


@pytest.fixture(autouse=True)
def seeded():
    """Layers and tokens that tests draw without a generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def windows(batch: int = 2, leads: int = 3, samples: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, leads, samples, generator=torch.Generator().manual_seed(seed))


def test_a_linear_output_attributes_weight_times_input():
    weight = windows(1, seed=1)[0]
    ecg = windows()
    found = integrated_gradients(lambda x: (x * weight).sum(dim=(1, 2)), ecg, steps=4)
    assert torch.allclose(found.attribution_BLT, (ecg * weight).double(), atol=1e-6)
    assert found.gap_B.abs().max() < 1e-5


def test_a_quadratic_output_splits_the_cross_term_in_halves():
    def product(x):
        return x[:, 0, 0] * x[:, 1, 0] + 3.0 * x[:, 2, 5] ** 2

    ecg = windows()
    found = integrated_gradients(product, ecg, steps=4)
    both = (ecg[:, 0, 0] * ecg[:, 1, 0]).double()
    assert torch.allclose(found.attribution_BLT[:, 0, 0], both / 2, atol=1e-6)
    assert torch.allclose(found.attribution_BLT[:, 2, 5], 3.0 * ecg[:, 2, 5].double() ** 2, atol=1e-5)
    found.attribution_BLT[:, 0, 0] = found.attribution_BLT[:, 1, 0] = found.attribution_BLT[:, 2, 5] = 0.0
    assert not found.attribution_BLT.any()


def test_the_attribution_is_complete_for_the_encoder_that_is_used():
    """LayerNorm on each patch makes the output jump near a flat baseline: dense steps must hold it."""
    encoder = build_module("ecg_encoder", "nano", seed=0).eval()
    head = nn.Linear(64, 1)
    ecg = windows(2, 12, 750)

    def output(x):
        return head(encoder(x))[:, 0]

    found = integrated_gradients(output, ecg)
    change = (found.output_B - found.baseline_B).abs()
    assert change.min() > 1e-3
    assert (found.gap_B.abs() / change).max() < 0.02
    assert torch.allclose(found.output_B, output(ecg).double())
    assert all(parameter.grad is None for parameter in [*encoder.parameters(), *head.parameters()])


def test_a_lead_that_is_not_read_gets_nothing_and_the_rest_is_found():
    layer = nn.Linear(20, 1)

    def output(x):
        return torch.tanh(layer(x[:, 1])[:, 0])

    found = lead_time_map(integrated_gradients(output, windows()).attribution_BLT, bins=5)
    assert found.shape == (2, 3, 5)
    assert not found[:, [0, 2]].any() and found[:, 1].any()


def test_another_baseline_is_where_the_path_begins():
    ecg, baseline = windows(), windows(1, seed=3)
    found = integrated_gradients(lambda x: (x**3).sum(dim=(1, 2)), ecg, baseline_BLT=baseline)
    assert torch.allclose(found.attribution_BLT.sum(dim=(1, 2)), found.output_B - found.baseline_B, atol=1e-3)
    same = integrated_gradients(lambda x: (x**3).sum(dim=(1, 2)), ecg, baseline_BLT=ecg)
    assert not same.attribution_BLT.any() and not same.gap_B.any()


def test_the_map_keeps_the_total_and_its_places():
    attribution = windows().double()
    found = lead_time_map(attribution, bins=4)
    assert np.allclose(found.sum(axis=(1, 2)), attribution.sum(dim=(1, 2)).numpy())
    assert np.allclose(found[:, :, 1], attribution[:, :, 5:10].sum(dim=2).numpy())
    for bins in (3, 0):
        with pytest.raises(ValueError, match="bins"):
            lead_time_map(attribution, bins=bins)


def test_outputs_that_are_not_one_number_a_window_are_refused():
    with pytest.raises(ValueError, match="one number"):
        integrated_gradients(lambda x: x.sum(dim=1), windows())
    with pytest.raises(ValueError, match="steps"):
        integrated_gradients(lambda x: x.sum(dim=(1, 2)), windows(), steps=0)


def test_no_window():
    found = integrated_gradients(lambda x: (x**2).sum(dim=(1, 2)), windows()[:0], steps=2)
    assert found.attribution_BLT.shape == (0, 3, 20)
    assert lead_time_map(found.attribution_BLT, bins=4).shape == (0, 3, 4)


def test_the_similarity_is_the_cosine_of_projected_tokens():
    ecg, cmr = torch.randn(12, 30, 8), torch.randn(36, 6)
    into_ecg, into_cmr = nn.Linear(8, 5), nn.Linear(6, 5)
    found = similarity_map(ecg, cmr, ecg_projection=into_ecg, cmr_projection=into_cmr)
    assert found.shape == (12, 30, 36)
    expected = cosine_similarity(into_ecg(ecg).detach().flatten(0, 1), into_cmr(cmr).detach())
    assert np.allclose(found.reshape(360, 36), expected, atol=1e-6)
    same = similarity_map(ecg, ecg[0] * 3.0, ecg_projection=nn.Identity(), cmr_projection=nn.Identity())
    assert np.allclose(np.diagonal(same[0]), 1.0) and np.abs(same).max() <= 1.0
    zero = similarity_map(ecg * 0, ecg[0], ecg_projection=nn.Identity(), cmr_projection=nn.Identity())
    assert not zero.any()
