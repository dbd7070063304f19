"""Sums of SSIM and PSNR under a name, added batch by batch; zeros while nobody was measured.

Legend: B cases, F frames, Y rows and X columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from cardionets_core.evaluation.images import image_metrics, image_sums
from cardionets_core.tasks.base import Sums, one

IMAGE_SUMS = ("n", "ssim", "ssim_squared", "psnr", "psnr_squared")


def no_images(kind: str) -> Sums:
    """The sums of no case, named ``KIND/n`` and so on."""
    return {f"{kind}/{name}": one(0.0) for name in IMAGE_SUMS}


def add_images(sums: Sums, kind: str, *, made_BFYX: torch.Tensor, real_BFYX: torch.Tensor) -> None:
    """Add some cases to the sums, in place."""
    for name, value in image_sums(made_BFYX, real_BFYX).items():
        sums[f"{kind}/{name}"] = sums[f"{kind}/{name}"] + value


def metrics_of_images(sums: Mapping[str, np.ndarray], kind: str) -> dict[str, float]:
    """``ssim``, ``psnr`` and their SDs; empty without cases."""
    return image_metrics({name: sums[f"{kind}/{name}"] for name in IMAGE_SUMS})
