"""Losses of the heads: phenotypes, diseases and the subtype (SCIENCE 4).

Each gives one value a row that depends on this row and constants only, so it decomposes. What is not known
(NaN) takes no part: it has a gradient of exactly 0.

Legend: B rows, J phenotypes, D diseases, C subtypes.
"""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax


def phenotype_loss(predicted_BJ: torch.Tensor, target_BJ: torch.Tensor) -> torch.Tensor:
    """``L_i = sum_j m_ij (predicted_ij - target_ij)^2 / max(1, sum_j m_ij)`` over the present columns.

    Args:
        predicted_BJ: standardised phenotypes as predicted.
        target_BJ: standardised phenotypes, NaN where missing.

    Returns:
        float32 ``[B]``; 0, with a gradient of 0, for a row without any value.
    """
    present_BJ = torch.isfinite(target_BJ)
    # Filled before the difference: 0 times a NaN's gradient would be NaN.
    error_BJ = torch.where(present_BJ, predicted_BJ.float() - _filled(target_BJ), 0.0)
    return error_BJ.square().sum(dim=1) / present_BJ.sum(dim=1).clamp_min(1)


def disease_loss(logit_BD: torch.Tensor, label_BD: torch.Tensor) -> torch.Tensor:
    """``L_i = 1/D sum_d m_id BCE(logit_id, label_id)``; the divisor is a constant, so the loss decomposes.

    Args:
        logit_BD: logits with the log odds of the global prevalence added (logit adjustment).
        label_BD: 1, 0, or NaN where not known.

    Returns:
        float32 ``[B]``; 0 for a row without any label.
    """
    known_BD = torch.isfinite(label_BD)
    entropy_BD = binary_cross_entropy_with_logits(logit_BD.float(), _filled(label_BD), reduction="none")
    return torch.where(known_BD, entropy_BD, 0.0).mean(dim=1)


def subtype_loss(logit_BC: torch.Tensor, label_BC: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the subtype in the rows that have a known one.

    Args:
        logit_BC: logits with the log share of each subtype added.
        label_BC: one 1 and else 0; a row with a NaN is not known.

    Returns:
        float32 ``[B]``; 0 for a row without a known subtype.
    """
    known_B = torch.isfinite(label_BC).all(dim=1)
    entropy_B = -(log_softmax(logit_BC.float(), dim=1) * _filled(label_BC)).sum(dim=1)
    return torch.where(known_B, entropy_B, 0.0)


def _filled(value: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(value), value.detach().float(), 0.0)
