"""Cosine distillation towards a fixed target, and the phenotype term beside it (SCIENCE 4, 5.2c, 5.3).

Both give one value a row that depends on this row and constants only. So they decompose: DP-SGD may be
applied, and the average of the sites' one-step gradients is the pooled gradient.

Legend: B rows, E width of the embedding, K phenotypes.
"""

from __future__ import annotations

import torch
from torch.nn.functional import smooth_l1_loss

from cardionets_core.losses.contrast_terms import row_cosines


def cosine_distillation(moving_BE: torch.Tensor, target_BE: torch.Tensor) -> torch.Tensor:
    """``L_i = 1 - cos(moving_i, stopgrad(target_i))``, in [0, 2]; 1 for a target of zeros.

    Serves alignment, where the target is the centred principal projection of the own cine's feature, and
    sites without cines, where it is the global model's embedding of the same ECG.

    Args:
        moving_BE: embeddings that are trained, not normalised.
        target_BE: fixed targets, not normalised; centred, since vectors that share a mean score well with a
            constant. They receive no gradient.

    Returns:
        float32 ``[B]`` (float64 for float64 embeddings).
    """
    return 1.0 - row_cosines(moving_BE, target_BE.detach())


def masked_smooth_l1(predicted_BK: torch.Tensor, target_BK: torch.Tensor) -> torch.Tensor:
    """``L_i = sum_j m_ij SmoothL1(predicted_ij - target_ij) / max(1, sum_j m_ij)`` over the present columns.

    Args:
        predicted_BK: standardised phenotypes as predicted.
        target_BK: standardised phenotypes, NaN where missing.

    Returns:
        float32 ``[B]``; 0, with a gradient of 0, for a row without any value.
    """
    present_BK = torch.isfinite(target_BK)
    # Filled on both sides before the difference: 0 times a NaN's gradient would be NaN.
    predicted_BK = torch.where(present_BK, predicted_BK.float(), 0.0)
    target_BK = torch.where(present_BK, target_BK.detach().float(), 0.0)
    loss_BK = smooth_l1_loss(predicted_BK, target_BK, reduction="none")
    return loss_BK.sum(dim=1) / present_BK.sum(dim=1).clamp_min(1)
