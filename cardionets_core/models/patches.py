"""Recordings cut into patches, and put together again (SCIENCE section 2).

Comes in: tensors of windows, cines and latents. Goes out: flat patches that a linear map can embed, or an
error is measured on. Nothing here has parameters.

Legend: B rows, L leads, T samples, F frames, Y rows and X columns of pixels, P patches, S values of a patch;
Z channels, T frames, H rows and W columns of a latent, L its tokens, K values of a token.
"""

from __future__ import annotations

import math

import torch


def patchify_ecg(ecg_BLT: torch.Tensor, samples: int) -> torch.Tensor:
    """Consecutive, disjoint patches of each lead.

    Args:
        ecg_BLT: windows; T is a multiple of ``samples``.
        samples: samples of a patch.

    Returns:
        ``[B, L, P, samples]``.
    """
    if ecg_BLT.shape[-1] % samples:
        raise ValueError(f"{ecg_BLT.shape[-1]} samples are not a multiple of the patch of {samples}")
    return ecg_BLT.unflatten(-1, (ecg_BLT.shape[-1] // samples, samples))


def unpatchify_ecg(patches_BLPS: torch.Tensor) -> torch.Tensor:
    """The inverse of ``patchify_ecg``: ``[B, L, P * S]``."""
    return patches_BLPS.flatten(-2)


def patchify_cine(cine_BFYX: torch.Tensor, pixels: int) -> torch.Tensor:
    """Square patches through all frames, row by row.

    Args:
        cine_BFYX: cines; Y and X are multiples of ``pixels``.
        pixels: rows and columns of a patch.

    Returns:
        ``[B, P, pixels * pixels * F]``; inside a patch the order is (row, column, frame).
    """
    batch, frames, rows, columns = cine_BFYX.shape
    if rows % pixels or columns % pixels:
        raise ValueError(f"{rows} x {columns} pixels are not a multiple of the patch of {pixels}")
    grid = cine_BFYX.reshape(batch, frames, rows // pixels, pixels, columns // pixels, pixels)
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify_cine(patches_BPS: torch.Tensor, *, pixels: int, frames: int) -> torch.Tensor:
    """The inverse of ``patchify_cine`` for a square cine: ``[B, F, Y, X]``."""
    batch, patches, _ = patches_BPS.shape
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} patches are not those of a square cine")
    grid = patches_BPS.reshape(batch, side, side, pixels, pixels, frames)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, frames, side * pixels, side * pixels)


def patchify_latent(latent_BZTHW: torch.Tensor, patch: tuple[int, int, int]) -> torch.Tensor:
    """Blocks of a latent, in the order time, row, column.

    Args:
        latent_BZTHW: latents; T, H and W are multiples of the patch.
        patch: values of a block along T, H and W.

    Returns:
        ``[B, L, Z * prod(patch)]``; inside a token the order is (channel, time, row, column).
    """
    batch, channels, *sizes = latent_BZTHW.shape
    if any(size % part for size, part in zip(sizes, patch, strict=True)):
        raise ValueError(f"a latent of {tuple(sizes)} is not a multiple of the patch of {patch}")
    t, h, w = (size // part for size, part in zip(sizes, patch, strict=True))
    blocks = latent_BZTHW.reshape(batch, channels, t, patch[0], h, patch[1], w, patch[2])
    return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def unpatchify_latent(
    tokens_BLK: torch.Tensor, *, patch: tuple[int, int, int], grid: tuple[int, int, int]
) -> torch.Tensor:
    """The inverse of ``patchify_latent``; ``grid`` says the tokens along T, H and W: ``[B, Z, T, H, W]``."""
    batch = tokens_BLK.shape[0]
    channels = tokens_BLK.shape[2] // math.prod(patch)
    (t, h, w), (pt, ph, pw) = grid, patch
    blocks = tokens_BLK.reshape(batch, t, h, w, channels, pt, ph, pw)
    return blocks.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, channels, t * pt, h * ph, w * pw)
