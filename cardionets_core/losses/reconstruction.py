"""The loss of the masked autoencoders: squared error on hidden patches (SCIENCE section 4).

Legend: B rows, P patches, H hidden patches, S values of a patch; ``...`` a lead axis or nothing.
"""

from __future__ import annotations

import torch


def masked_squared_error(
    predicted: torch.Tensor, target: torch.Tensor, *, hidden: torch.Tensor
) -> torch.Tensor:
    """``L_i = 1/|M| sum_{m in M} mean_s (predicted_ms - target_ms)^2`` of each row, in fp32.

    Every row hides the same number of patches, so the batch loss is the mean of the rows.

    Args:
        predicted: ``[B, ..., P, S]``.
        target: ``[B, ..., P, S]``.
        hidden: int64 ``[B, ..., H]``, indices of the hidden patches.

    Returns:
        float32 ``[B]``.
    """
    index = hidden[..., None].expand(*hidden.shape, target.shape[-1])
    error = predicted.gather(-2, index).float() - target.gather(-2, index).float()
    return error.square().flatten(1).mean(dim=1)


def masked_correlation(
    predicted: torch.Tensor, target: torch.Tensor, *, hidden: torch.Tensor
) -> torch.Tensor:
    """Pearson's correlation over the hidden values of each row, 0 where a side is constant; float64 ``[B]``.

    Arguments as in ``masked_squared_error``.
    """
    index = hidden[..., None].expand(*hidden.shape, target.shape[-1])
    first = predicted.gather(-2, index).double().flatten(1)
    second = target.gather(-2, index).double().flatten(1)
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    scale = first.norm(dim=1) * second.norm(dim=1)
    product = (first * second).sum(dim=1)
    return torch.where(scale > 0, product / scale.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
