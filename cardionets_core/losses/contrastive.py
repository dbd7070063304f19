"""InfoNCE between ECG and cine embeddings, in the batch and against a local bank (SCIENCE 4 and 5.2b).

Both are computed in fp32 with logsumexp; exp(1/T) overflows in half precision. Neither decomposes: each
row's gradient depends on the other rows, so there is no per-sample loss and no DP-SGD.

Legend: B rows of the batch, N entries of the bank, E width of the common space.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def info_nce(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    temperature: float,
    same_patient_BB: torch.Tensor | None = None,
) -> torch.Tensor:
    """``1/2B sum_i [ lse_j(s_ij/T) + lse_j(s_ji/T) - 2 s_ii/T ]`` with ``s_ij = cos(ecg_i, cmr_j)``.

    Equals ln B at equal logits, and does not change when the two towers are exchanged.

    Args:
        ecg_BE: ECG embeddings, not normalised; row i belongs to row i of ``cmr_BE``.
        cmr_BE: cine embeddings, not normalised.
        temperature: T > 0.
        same_patient_BB: bool; true entries off the diagonal are no negatives.

    Returns:
        A scalar, float32.
    """
    logits_BB = _cosines(ecg_BE, cmr_BE) / temperature
    own_B = logits_BB.diagonal()
    masked_BB = _exclude(logits_BB, same_patient_BB)
    # The own logit is taken off inside the sum: fp32 keeps 1e-6 although s/T reaches 20.
    ecg_to_cmr_B = (masked_BB - own_B[:, None]).logsumexp(dim=1)
    cmr_to_ecg_B = (masked_BB - own_B[None, :]).logsumexp(dim=0)
    return 0.5 * (ecg_to_cmr_B + cmr_to_ecg_B).mean()


def bank_info_nce(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    bank_NE: torch.Tensor,
    same_patient_BN: torch.Tensor,
    temperature: float,
    same_patient_BB: torch.Tensor | None = None,
) -> torch.Tensor:
    """ECG to CMR over the own cine and the bank's other patients; CMR to ECG over the batch.

    The bank holds the batch's own cines; they are masked there with all of their patients' entries, and
    the own cine comes in through ``cmr_BE``. So the bank of exactly the batch gives ``info_nce``, and equal
    logits give ``(ln N + ln B) / 2`` when each patient has one entry.

    Args:
        ecg_BE: ECG embeddings.
        cmr_BE: embeddings of the own cines.
        bank_NE: embeddings of all local training cines.
        same_patient_BN: bool, true where the bank's entry is of the row's patient.
        temperature: T > 0.
        same_patient_BB: bool; true entries off the diagonal are no negatives in the batch either.

    Returns:
        A scalar, float32.
    """
    batch_BB = _cosines(ecg_BE, cmr_BE) / temperature
    own_B = batch_BB.diagonal()
    bank_BN = (_cosines(ecg_BE, bank_NE) / temperature).masked_fill(same_patient_BN, float("-inf"))
    ecg_to_cmr_B = torch.cat([torch.zeros_like(own_B)[:, None], bank_BN - own_B[:, None]], dim=1).logsumexp(
        dim=1
    )
    cmr_to_ecg_B = (_exclude(batch_BB, same_patient_BB) - own_B[None, :]).logsumexp(dim=0)
    return 0.5 * (ecg_to_cmr_B + cmr_to_ecg_B).mean()


def _cosines(first_BE: torch.Tensor, second_NE: torch.Tensor) -> torch.Tensor:
    return normalize(first_BE.float(), dim=1) @ normalize(second_NE.float(), dim=1).T


def _exclude(logits_BB: torch.Tensor, same_patient_BB: torch.Tensor | None) -> torch.Tensor:
    if same_patient_BB is None:
        return logits_BB
    own = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    return logits_BB.masked_fill(same_patient_BB & ~own, float("-inf"))
