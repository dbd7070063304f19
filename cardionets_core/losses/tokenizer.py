"""Losses of the tokenizer: reconstruction, divergence, peaks, and the optional adversary (SCIENCE section 4).

The first three are sums over rows; the adversarial weight couples the rows of a batch, so a run that promises
privacy has no adversary.

Legend: B rows, F frames, Y rows and X columns of pixels; Z channels, T frames, H rows and W columns of a
latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

KL_WEIGHT = 1e-6
PEAK_DEVIATIONS = 3.0
SMALLEST_VARIANCE = 1e-12
LARGEST_WEIGHT = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerLoss:
    """The loss of each row and its parts; float32 ``[B]``.

    Attributes:
        total_B: ``l1_B + kl_weight * kl_B + peaks_B``.
        l1_B: mean absolute difference of the pixels.
        kl_B: divergence from the standard normal, nats, summed over the latent.
        peaks_B: mean excess of reconstructed pixels over their frame's mean + 3 SD.
    """

    total_B: torch.Tensor
    l1_B: torch.Tensor
    kl_B: torch.Tensor
    peaks_B: torch.Tensor


def tokenizer_loss(
    made_BFYX: torch.Tensor,
    cine_BFYX: torch.Tensor,
    *,
    mean_BZTHW: torch.Tensor,
    log_variance_BZTHW: torch.Tensor,
    kl_weight: float = KL_WEIGHT,
) -> TokenizerLoss:
    """``mean|x - xhat| + 1e-6 KL + mean relu(xhat - mu(xhat) - 3 sd(xhat))`` of each row, mu and sd by frame.

    Args:
        made_BFYX: reconstructions xhat.
        cine_BFYX: cines x.
        mean_BZTHW: of the posterior, not normalised.
        log_variance_BZTHW: of the posterior.
        kl_weight: weight of the divergence.
    """
    l1_B = (cine_BFYX.float() - made_BFYX.float()).abs().flatten(1).mean(dim=1)
    kl_B = kl_to_standard(mean_BZTHW, log_variance_BZTHW)
    peaks_B = peak_excess(made_BFYX)
    return TokenizerLoss(total_B=l1_B + kl_weight * kl_B + peaks_B, l1_B=l1_B, kl_B=kl_B, peaks_B=peaks_B)


def kl_to_standard(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """``1/2 sum (mean^2 + variance - 1 - log variance)`` over all values of a row, ``[B]``."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).sum(dim=1)


def peak_excess(made_BFYX: torch.Tensor) -> torch.Tensor:
    """``mean relu(x - mu - 3 sd)``, mu and the population's sd over the pixels of a frame, ``[B]``."""
    pixels = made_BFYX.float().flatten(2)
    centred = pixels - pixels.mean(dim=2, keepdim=True)
    # A flat frame has no excess, and the root's gradient must not be infinite there.
    deviation = centred.square().mean(dim=2, keepdim=True).clamp_min(SMALLEST_VARIANCE).sqrt()
    return (centred - PEAK_DEVIATIONS * deviation).relu().flatten(1).mean(dim=1)


def discriminator_hinge(real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """``1/2 (mean relu(1 - real) + mean relu(1 + made))`` of the discriminator's logits, a scalar."""
    return 0.5 * ((1.0 - real.float()).relu().mean() + (1.0 + made.float()).relu().mean())


def generator_hinge(made: torch.Tensor) -> torch.Tensor:
    """``-mean`` of the discriminator's logits of reconstructions, a scalar."""
    return -made.float().mean()


def adaptive_weight(
    reconstruction: torch.Tensor, adversarial: torch.Tensor, *, last_weight: torch.Tensor
) -> torch.Tensor:
    """Ratio of the two losses' gradient norms at the tokenizer's last layer, in [0, 1e4], without gradient.

    Args:
        reconstruction: scalar loss; its graph is kept.
        adversarial: scalar loss; its graph is kept.
        last_weight: kernel of the last layer.
    """
    first, second = (
        torch.autograd.grad(loss, last_weight, retain_graph=True)[0].float().norm()
        for loss in (reconstruction, adversarial)
    )
    return (first / (second + 1e-4)).clamp(0.0, LARGEST_WEIGHT).detach()
