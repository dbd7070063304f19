"""InfoNCE with negatives weighted by how far apart the hearts are (SCIENCE 4 "weighted" and 5.2f).

A negative k of row i counts ``W_ik`` times: 0 for the same heart, 1 for a distant one. The distance is taken
between positions phi that are the same for all sites (principal components from sums); with a PCA of each
site's own, W would mean another thing at each. A weight of exactly 0 is a mask, so same-patient pairs need
no second one. Like InfoNCE it does not decompose.

Legend: B rows of the batch, N entries of the bank, P principal components, E width of the common space.
"""

from __future__ import annotations

import torch

from cardionets_core.losses.contrast_terms import (
    contrast_both_ways,
    contrast_columns,
    contrast_with,
    cosines,
    diagonal,
)
from cardionets_core.losses.contrastive import cap_correction


def distance_weights(
    phi_BP: torch.Tensor,
    phi_NP: torch.Tensor,
    *,
    sigma: float,
    same_patient_BN: torch.Tensor | None = None,
) -> torch.Tensor:
    """``W_ik = 1 - exp(-||phi_i - phi_k||^2 / sigma^2)``, clamped to [0, 1].

    Distances are taken from differences, not by expanding the square, so that equal positions are at
    distance 0 exactly and none is negative.

    Args:
        phi_BP: positions of the rows.
        phi_NP: positions of the others; the rows themselves for the batch.
        sigma: in the unit of phi, above 0.
        same_patient_BN: bool; true entries weigh 0.

    Returns:
        float32 ``[B, N]`` without gradient.

    Raises:
        ValueError: sigma is not above 0.
    """
    if not sigma > 0.0:
        raise ValueError(f"sigma is {sigma}, not above 0")
    # Divided first: the square of a half-precision or far position might overflow.
    near_BP, far_NP = phi_BP.detach().float() / sigma, phi_NP.detach().float() / sigma
    with torch.autocast(near_BP.device.type, enabled=False):
        distance_BN = torch.cdist(near_BP, far_NP, compute_mode="donot_use_mm_for_euclid_dist")
    weight_BN = -torch.expm1(-distance_BN.square())
    if same_patient_BN is not None:
        weight_BN = weight_BN.masked_fill(same_patient_BN, 0.0)
    return weight_BN.clamp(0.0, 1.0)


def weighted_info_nce(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    weight_BB: torch.Tensor,
    temperature: float | torch.Tensor,
) -> torch.Tensor:
    """Mean over rows and directions of ``-s_ii/T + lse(s_ii/T, {s_ik/T + log W_ik : k != i})``.

    Equals ``info_nce`` where all weights off the diagonal are 1.

    Args:
        ecg_BE: ECG embeddings, not normalised; row i belongs to row i of ``cmr_BE``.
        cmr_BE: cine embeddings, not normalised.
        weight_BB: in [0, 1], from ``distance_weights``; the diagonal is not read.
        temperature: T > 0.

    Returns:
        A scalar, float32 (float64 for float64 embeddings).
    """
    return contrast_both_ways(_weigh_batch(cosines(ecg_BE, cmr_BE) / temperature, weight_BB))


def bank_weighted_info_nce(
    ecg_BE: torch.Tensor,
    cmr_BE: torch.Tensor,
    *,
    bank_NE: torch.Tensor,
    weight_BN: torch.Tensor,
    weight_BB: torch.Tensor,
    temperature: float | torch.Tensor,
    drawn_from: int | None = None,
) -> torch.Tensor:
    """ECG to CMR over the own cine and the weighted bank; CMR to ECG over the weighted batch.

    With weights of 0 for the own patient and 1 elsewhere it is ``bank_info_nce``; with the bank of exactly
    the batch it is ``weighted_info_nce``.

    Args:
        ecg_BE: ECG embeddings.
        cmr_BE: embeddings of the own cines.
        bank_NE: embeddings of all local training cines.
        weight_BN: weights of the bank's entries, 0 for those of the row's patient (pass
            ``same_patient_BN`` to ``distance_weights``): the own cine comes in through ``cmr_BE``.
        weight_BB: weights in the batch; the diagonal is not read.
        temperature: T > 0.
        drawn_from: see ``cap_correction``.

    Returns:
        A scalar, float32 (float64 for float64 embeddings).

    Raises:
        ValueError: see ``cap_correction``.
    """
    batch_BB = cosines(ecg_BE, cmr_BE) / temperature
    bank_BN = cosines(ecg_BE, bank_NE) / temperature
    bank_BN = bank_BN + weight_BN.detach().to(bank_BN.dtype).log() + cap_correction(len(bank_NE), drawn_from)
    ecg_to_cmr_B = contrast_with(batch_BB.diagonal(), bank_BN)
    return 0.5 * (ecg_to_cmr_B + contrast_columns(_weigh_batch(batch_BB, weight_BB))).mean()


def _weigh_batch(logits_BB: torch.Tensor, weight_BB: torch.Tensor) -> torch.Tensor:
    log_weight_BB = weight_BB.detach().to(logits_BB.dtype).log()
    return logits_BB + log_weight_BB.masked_fill(diagonal(logits_BB), 0.0)
