"""SSIM and PSNR against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cardionets_core.evaluation import (
    IMAGE_DEFINITION,
    add_sums,
    case_psnr,
    case_ssim,
    image_metrics,
    image_sums,
)


def make_cines(cases: int, *, frames: int = 3, side: int = 32, seed: int = 0):
    """A bright disc in the dark, and a blurred, noisy copy whose values overshoot -1..1."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.linspace(-1, 1, side)
    radius = torch.rand((cases, frames, 1, 1), generator=generator) * 0.4 + 0.3
    disc = ((place[:, None] ** 2 + place[None, :] ** 2).sqrt() < radius).float() * 1.6 - 0.95
    noise = torch.randn(disc.shape, generator=generator)
    return disc * 1.3 + 0.15 * noise, disc


def to_unit(cine: torch.Tensor) -> np.ndarray:
    return (cine.double().clamp(-1, 1).numpy() + 1) / 2


@pytest.mark.parametrize("side", [11, 32, 96])
def test_ssim_and_psnr_are_those_of_scikit_image(side):
    generated, real = make_cines(2, side=side)
    ssim, psnr = case_ssim(generated, real), case_psnr(generated, real)
    for case in range(2):
        pairs = list(zip(to_unit(generated[case]), to_unit(real[case]), strict=True))
        similarity = [
            structural_similarity(
                a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for a, b in pairs
        ]
        assert ssim[case].item() == pytest.approx(np.mean(similarity), abs=1e-9)
        decibel = [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in pairs]
        assert psnr[case].item() == pytest.approx(np.mean(decibel), abs=1e-9)


def test_equal_cines_are_one_and_the_ceiling_and_the_order_does_not_matter():
    generated, real = make_cines(2)
    assert torch.allclose(case_ssim(real, real), torch.ones(2, dtype=torch.float64), atol=1e-12)
    assert (case_psnr(real, real) == 100.0).all()
    assert torch.allclose(case_ssim(generated, real), case_ssim(real, generated), atol=1e-12)


def test_a_constant_offset_has_closed_forms():
    """Flat frames of 0.25 and 0.75: the structure term is 1, only the luminance counts; MSE is 1/4."""
    low, high = torch.full((1, 2, 16, 16), -0.5), torch.full((1, 2, 16, 16), 0.5)
    c1 = 0.01**2
    expected = (2 * 0.25 * 0.75 + c1) / (0.25**2 + 0.75**2 + c1)
    assert case_ssim(low, high).item() == pytest.approx(expected, abs=1e-9)
    assert case_psnr(low, high).item() == pytest.approx(10 * np.log10(4), abs=1e-9)


def test_values_beyond_the_range_are_clamped():
    generated, real = make_cines(1)
    assert torch.equal(case_ssim(generated, real), case_ssim(generated.clamp(-1, 1), real))


def test_half_precision_input_is_computed_in_double():
    generated, real = (cine.half() for cine in make_cines(1))
    assert torch.equal(case_ssim(generated, real), case_ssim(generated.double(), real.double()))


def test_pooled_means_and_deviations_equal_the_centralised_ones():
    generated, real = make_cines(7)
    sums = add_sums({"a": image_sums(generated[:2], real[:2]), "b": image_sums(generated[2:], real[2:])})
    found = image_metrics(sums)
    for name, metric in (("ssim", case_ssim), ("psnr", case_psnr)):
        values = metric(generated, real).numpy()
        assert found[name] == pytest.approx(values.mean(), abs=1e-9)
        assert found[f"{name}_sd"] == pytest.approx(values.std(ddof=1), abs=1e-6)


def test_no_case_and_one_case():
    generated, real = make_cines(1)
    assert image_metrics(image_sums(generated[:0], real[:0])) == {}
    assert set(image_metrics(image_sums(generated, real))) == {"ssim", "psnr"}


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="11x11"):
        case_ssim(torch.zeros(1, 1, 10, 32), torch.zeros(1, 1, 10, 32))
    with pytest.raises(ValueError, match="equal shapes"):
        case_ssim(torch.zeros(1, 1, 32, 32), torch.zeros(1, 2, 32, 32))
    with pytest.raises(ValueError, match="differ"):
        case_psnr(torch.zeros(1, 1, 32, 32), torch.zeros(1, 2, 32, 32))


def test_the_definition_names_every_choice():
    for word in (
        "clamped",
        "0..1",
        "11x11",
        "1.5",
        "inside",
        "population",
        "0.01",
        "0.03",
        "frames",
        "100 dB",
    ):
        assert word in IMAGE_DEFINITION
