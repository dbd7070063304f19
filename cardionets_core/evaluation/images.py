"""SSIM and PSNR of generated cines, by one stated definition (SCIENCE section 7).

Legend: B cases, F frames, Y rows and X columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import conv2d

WINDOW = 11
WINDOW_SD = 1.5
K1, K2 = 0.01, 0.03
PSNR_CEILING_DB = 100.0

IMAGE_DEFINITION = (
    "Pixels clamped to -1..1 and mapped to 0..1 (range 1). SSIM: 11x11 Gaussian window of SD 1.5, windows "
    "wholly inside the frame, population variances, k1 = 0.01, k2 = 0.03; mean over windows, then frames, "
    "then cases. PSNR: 10 log10(1 / mean squared error) of each frame, at most 100 dB; mean over frames, "
    "then cases."
)


def case_ssim(generated_BFYX: torch.Tensor, real_BFYX: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each case, by ``IMAGE_DEFINITION`` (Wang et al. 2004).

    Args:
        generated_BFYX: cines in -1..1; what lies outside is clamped.
        real_BFYX: cines of the same shape.

    Returns:
        float64 [B], on the device of the cines.

    Raises:
        ValueError: the shapes differ, or a frame is smaller than 11x11.
    """
    generated, real = _frames(generated_BFYX), _frames(real_BFYX)
    if generated_BFYX.shape != real_BFYX.shape or min(generated_BFYX.shape[2:]) < WINDOW:
        raise ValueError(
            f"cines of shapes {tuple(generated_BFYX.shape)} and {tuple(real_BFYX.shape)}: "
            f"SSIM takes equal shapes of at least {WINDOW}x{WINDOW} pixels"
        )
    mean_g, mean_r = _smooth(generated), _smooth(real)
    variance_g = _smooth(generated**2) - mean_g**2
    variance_r = _smooth(real**2) - mean_r**2
    covariance = _smooth(generated * real) - mean_g * mean_r
    c1, c2 = K1**2, K2**2
    similarity = (2 * mean_g * mean_r + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_g**2 + mean_r**2 + c1) * (variance_g + variance_r + c2))
    return similarity.mean(dim=(1, 2, 3)).unflatten(0, generated_BFYX.shape[:2]).mean(dim=1)


def case_psnr(generated_BFYX: torch.Tensor, real_BFYX: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each case in dB, by ``IMAGE_DEFINITION``.

    Args:
        generated_BFYX: cines in -1..1; what lies outside is clamped.
        real_BFYX: cines of the same shape.

    Returns:
        float64 [B], at most 100 dB (where the frames are equal it would be infinite).

    Raises:
        ValueError: the shapes differ.
    """
    if generated_BFYX.shape != real_BFYX.shape:
        raise ValueError(f"shapes {tuple(generated_BFYX.shape)} and {tuple(real_BFYX.shape)} differ")
    error = (_frames(generated_BFYX) - _frames(real_BFYX)).square().mean(dim=(1, 2, 3))
    decibel = -10.0 * torch.log10(error.clamp_min(10.0 ** (-PSNR_CEILING_DB / 10.0)))
    return decibel.unflatten(0, generated_BFYX.shape[:2]).mean(dim=1)


def image_sums(generated_BFYX: torch.Tensor, real_BFYX: torch.Tensor) -> dict[str, np.ndarray]:
    """Sums over cases: ``n``, and of SSIM and PSNR the sum and the sum of squares; float64 [1] each.

    Raises:
        ValueError: as ``case_ssim``.
    """
    found = {"n": np.array([float(len(real_BFYX))])}
    for name, metric in (("ssim", case_ssim), ("psnr", case_psnr)):
        values_B = metric(generated_BFYX, real_BFYX).cpu().numpy()
        found[name] = np.array([values_B.sum()])
        found[f"{name}_squared"] = np.array([(values_B**2).sum()])
    return found


def image_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean ``ssim`` and ``psnr`` over cases, and their standard deviations ``ssim_sd``, ``psnr_sd`` (n - 1).

    Empty without cases; without the SDs for a single one.
    """
    n = float(sums["n"][0])
    found: dict[str, float] = {}
    for name in ("ssim", "psnr"):
        if n > 0:
            found[name] = float(sums[name][0]) / n
        if n > 1:
            spread = float(sums[f"{name}_squared"][0]) - n * found[name] ** 2
            found[f"{name}_sd"] = float(np.sqrt(max(spread, 0.0) / (n - 1)))
    return found


def _frames(cine_BFYX: torch.Tensor) -> torch.Tensor:
    """Each frame as an image in 0..1; float64: in float32 a dark region's variance is mostly rounding."""
    return ((cine_BFYX.double().clamp(-1.0, 1.0) + 1.0) / 2.0).flatten(0, 1)[:, None]


def _smooth(images: torch.Tensor) -> torch.Tensor:
    """Weighted mean of each window that lies wholly inside."""
    place = torch.arange(WINDOW, dtype=torch.float64, device=images.device) - WINDOW // 2
    weight = torch.exp(-0.5 * (place / WINDOW_SD) ** 2)
    weight = weight / weight.sum()
    return conv2d(conv2d(images, weight[None, None, :, None]), weight[None, None, None, :])
