"""Cross-correlation of two embeddings over all sites, from shared moments (arXiv 2210.00092; SCIENCE 5.2d).

The loss depends on the rows through raw moments only. Sites add their moments, and each then takes the value
of the total with the gradient of its own part: the gradients, weighted by the rows, add up to the pooled
gradient for one local step with all sites taking part. It couples all patients, so it does not decompose.

Moments are float64: a variance is the difference of two of them.

Legend: B rows, E width of the common space; f the ECG's embedding, g the cine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cardionets_core.losses.contrast_terms import diagonal

OFF_DIAGONAL = 5e-3
# Added to variances. An embedding that is constant over all rows has K = 0 instead of 0/0.
VARIANCE_FLOOR = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Raw moments over some rows; float64, zeros for no row.

    Attributes:
        n: number of rows, shape (); never with gradient.
        f_E: mean of f.
        g_E: mean of g.
        ff_E: mean of f squared.
        gg_E: mean of g squared.
        fg_EE: mean of f_i g_j.
    """

    n: torch.Tensor
    f_E: torch.Tensor
    g_E: torch.Tensor
    ff_E: torch.Tensor
    gg_E: torch.Tensor
    fg_EE: torch.Tensor


def batch_moments(ecg_BE: torch.Tensor, cmr_BE: torch.Tensor) -> Moments:
    """Moments of paired embeddings, not normalised, with their gradient. B = 0 is legal."""
    f_BE, g_BE = ecg_BE.double(), cmr_BE.double()
    rows = max(len(f_BE), 1)
    return Moments(
        n=torch.tensor(float(len(f_BE)), dtype=torch.float64, device=f_BE.device),
        f_E=f_BE.sum(dim=0) / rows,
        g_E=g_BE.sum(dim=0) / rows,
        ff_E=f_BE.square().sum(dim=0) / rows,
        gg_E=g_BE.square().sum(dim=0) / rows,
        fg_EE=f_BE.T @ g_BE / rows,
    )


def pool_moments(parts: Sequence[Moments]) -> Moments:
    """Moments over the rows of all parts, each weighted by its rows; at least one part."""
    n = torch.stack([part.n for part in parts]).sum()
    share = [part.n / n.clamp_min(1.0) for part in parts]

    def mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([w * value for w, value in zip(share, values, strict=True)]).sum(dim=0)

    return Moments(
        n=n,
        f_E=mean([part.f_E for part in parts]),
        g_E=mean([part.g_E for part in parts]),
        ff_E=mean([part.ff_E for part in parts]),
        gg_E=mean([part.gg_E for part in parts]),
        fg_EE=mean([part.fg_EE for part in parts]),
    )


def share_moments(own: Moments, total: Moments) -> Moments:
    """The total's value with the own part's gradient: ``own + stopgrad(total - own)``.

    Args:
        own: moments of the own batch, with gradient.
        total: moments over all sites at the same parameters; it receives no gradient.
    """

    def share(mine: torch.Tensor, all_sites: torch.Tensor) -> torch.Tensor:
        return mine + (all_sites - mine).detach()

    return Moments(
        n=total.n.detach(),
        f_E=share(own.f_E, total.f_E),
        g_E=share(own.g_E, total.g_E),
        ff_E=share(own.ff_E, total.ff_E),
        gg_E=share(own.gg_E, total.gg_E),
        fg_EE=share(own.fg_EE, total.fg_EE),
    )


def cross_correlation(moments: Moments, *, floor: float = VARIANCE_FLOOR) -> torch.Tensor:
    """``K_ij = (E[f_i g_j] - E[f_i] E[g_j]) / (sd f_i sd g_j)``, float64 ``[E, E]``.

    Args:
        moments: over at least two rows, or K means nothing.
        floor: added to both variances, in the embeddings' unit squared.
    """
    covariance_EE = moments.fg_EE - moments.f_E[:, None] * moments.g_E[None, :]
    # Rounding may leave a constant's variance just below 0.
    f_E = (moments.ff_E - moments.f_E.square()).clamp_min(0.0) + floor
    g_E = (moments.gg_E - moments.g_E.square()).clamp_min(0.0) + floor
    return covariance_EE / (f_E.sqrt()[:, None] * g_E.sqrt()[None, :])


def dcco_loss(
    moments: Moments, *, off_diagonal: float = OFF_DIAGONAL, floor: float = VARIANCE_FLOOR
) -> torch.Tensor:
    """``sum_i (1 - K_ii)^2 + lambda sum_{i != j} K_ij^2``.

    Args:
        moments: of the pooled rows, or of ``share_moments`` at a site.
        off_diagonal: lambda.
        floor: as of ``cross_correlation``.

    Returns:
        A scalar, float32.
    """
    k_EE = cross_correlation(moments, floor=floor)
    off_EE = k_EE.masked_fill(diagonal(k_EE), 0.0)
    total = (1.0 - k_EE.diagonal()).square().sum() + off_diagonal * off_EE.square().sum()
    return total.float()
