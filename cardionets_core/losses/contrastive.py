"""InfoNCE between ECG and cine embeddings, in the batch and against a local bank (SCIENCE 4 and 5.2b).

Neither decomposes: each row's gradient depends on the other rows, so there is no per-sample loss and no
DP-SGD.

Legend: B rows of the batch, N entries of the bank, E width of the common space.
"""

from __future__ import annotations

import math

import torch

from cardionets_core.losses.contrast_terms import (
    contrast_both_ways,
    contrast_columns,
    contrast_with,
    cosines,
    exclude,
)


def info_nce(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    temperature: float | torch.Tensor,
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
        A scalar, float32 (float64 for float64 embeddings).
    """
    return contrast_both_ways(exclude(cosines(ecg_BE, cmr_BE) / temperature, same_patient_BB))


def bank_info_nce(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    bank_NE: torch.Tensor,
    same_patient_BN: torch.Tensor,
    temperature: float | torch.Tensor,
    same_patient_BB: torch.Tensor | None = None,
    drawn_from: int | None = None,
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
        drawn_from: see ``cap_correction``.

    Returns:
        A scalar, float32 (float64 for float64 embeddings).

    Raises:
        ValueError: see ``cap_correction``.
    """
    batch_BB = cosines(ecg_BE, cmr_BE) / temperature
    bank_BN = (cosines(ecg_BE, bank_NE) / temperature).masked_fill(same_patient_BN, float("-inf"))
    ecg_to_cmr_B = contrast_with(batch_BB.diagonal(), bank_BN + cap_correction(len(bank_NE), drawn_from))
    return 0.5 * (ecg_to_cmr_B + contrast_columns(exclude(batch_BB, same_patient_BB))).mean()


def cap_correction(entries: int, drawn_from: int | None) -> float:
    """``log((M - 1) / (N - 1))``, added to the negative logits of a bank of N that was drawn from M entries.

    With it, equal logits give ln M again: each of the N - 1 negatives stands for (M - 1) / (N - 1). The rows'
    own cines are among the N entries.

    Args:
        entries: N.
        drawn_from: M; None where the bank is complete.

    Returns:
        0 for a complete bank.

    Raises:
        ValueError: the bank is larger than what it was drawn from, or is capped at fewer than two entries.
    """
    if drawn_from is None or drawn_from == entries:
        return 0.0
    if not 2 <= entries < drawn_from:
        raise ValueError(f"a bank of {entries} entries cannot stand for {drawn_from}")
    return math.log((drawn_from - 1) / (entries - 1))
