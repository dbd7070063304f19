"""The terms that the contrastive losses are made of: cosines, masks and softmax against the own pair.

Everything here is computed in fp32 or wider, whatever the input and whether or not autocast is on: exp(1/T)
overflows in half precision, and bf16 keeps two digits of a cosine.

Legend: B rows of the batch, N other entries, E width of the common space.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def cosines(first_BE: torch.Tensor, second_NE: torch.Tensor) -> torch.Tensor:
    """Cosine of every row of one side with every row of the other, ``[B, N]``.

    Returns:
        float32, or float64 where a side is float64.
    """
    dtype = _wide(first_BE, second_NE)
    with torch.autocast(first_BE.device.type, enabled=False):
        return normalize(first_BE.to(dtype), dim=1) @ normalize(second_NE.to(dtype), dim=1).T


def row_cosines(first_BE: torch.Tensor, second_BE: torch.Tensor) -> torch.Tensor:
    """Cosine of row i with row i, ``[B]``; 0 where a side is the zero vector. Type as of ``cosines``."""
    dtype = _wide(first_BE, second_BE)
    with torch.autocast(first_BE.device.type, enabled=False):
        return (normalize(first_BE.to(dtype), dim=1) * normalize(second_BE.to(dtype), dim=1)).sum(dim=1)


def exclude(logits_BB: torch.Tensor, same_patient_BB: torch.Tensor | None) -> torch.Tensor:
    """Logits of other pairs of the same patient become ``-inf``; the diagonal stays."""
    if same_patient_BB is None:
        return logits_BB
    return logits_BB.masked_fill(same_patient_BB & ~diagonal(logits_BB), float("-inf"))


def diagonal(logits_BB: torch.Tensor) -> torch.Tensor:
    """Bool [B, B], true on the diagonal."""
    return torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)


def contrast_with(own_B: torch.Tensor, other_BN: torch.Tensor) -> torch.Tensor:
    """``lse(own_i, {other_ij}) - own_i`` of each row, ``[B]``; an other of ``-inf`` counts for nothing.

    The own logit is taken off inside the sum: fp32 keeps 1e-6 although s/T reaches 20.
    """
    return torch.cat([torch.zeros_like(own_B)[:, None], other_BN - own_B[:, None]], dim=1).logsumexp(dim=1)


def contrast_both_ways(logits_BB: torch.Tensor) -> torch.Tensor:
    """Mean over rows and both directions of ``lse - own``, a scalar; the own pairs are on the diagonal."""
    own_B = logits_BB.diagonal()
    first_B = (logits_BB - own_B[:, None]).logsumexp(dim=1)
    return 0.5 * (first_B + contrast_columns(logits_BB)).mean()


def contrast_columns(logits_BB: torch.Tensor) -> torch.Tensor:
    """The half of ``contrast_both_ways`` from columns to rows, ``[B]``."""
    return (logits_BB - logits_BB.diagonal()[None, :]).logsumexp(dim=0)


def _wide(first: torch.Tensor, second: torch.Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
