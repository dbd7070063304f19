"""The pairwise sigmoid loss: each pair of a batch is judged alone, without a normaliser (SCIENCE 4, 5.2e).

It has no sum over the batch inside a logarithm, so small batches hurt less; but a row's pairs with other
patients still couple them, so it does not decompose.

Legend: B rows, E width of the common space.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from cardionets_core.losses.contrast_terms import cosines, diagonal

INITIAL_SCALE = 10.0
INITIAL_BIAS = -10.0


def sigmoid_loss(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    scale: torch.Tensor,
    bias: torch.Tensor,
    same_patient_BB: torch.Tensor | None = None,
) -> torch.Tensor:
    """``1/B sum_ij softplus(-y_ij (a s_ij + b))`` with y = 1 on the diagonal and -1 elsewhere.

    Args:
        ecg_BE: ECG embeddings, not normalised; row i belongs to row i of ``cmr_BE``.
        cmr_BE: cine embeddings, not normalised.
        scale: a, one number; learned and averaged over sites, from ``INITIAL_SCALE``.
        bias: b, one number; likewise, from ``INITIAL_BIAS``.
        same_patient_BB: bool; true entries off the diagonal are left out.

    Returns:
        A scalar, float32 (float64 for float64 embeddings).
    """
    cosine_BB = cosines(ecg_BE, cmr_BE)
    own_BB = diagonal(cosine_BB)
    logits_BB = scale.to(cosine_BB.dtype).reshape(()) * cosine_BB + bias.to(cosine_BB.dtype).reshape(())
    loss_BB = -logsigmoid(torch.where(own_BB, logits_BB, -logits_BB))
    if same_patient_BB is not None:
        loss_BB = loss_BB.masked_fill(same_patient_BB & ~own_BB, 0.0)
    return loss_BB.sum() / len(loss_BB)
