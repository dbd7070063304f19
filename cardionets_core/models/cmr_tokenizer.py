"""The CMR tokenizer V: a variational autoencoder of cines in time and space (SCIENCE section 2).

Comes in: cines in [-1, 1]. Goes out: a Gaussian of each latent, or a cine from a latent. A latent is
normalised over the whole sample, so that no scale constant travels with the model.

Legend: B rows, F frames, Y rows and X columns of pixels; Z channels, T frames, H rows and W columns of a
latent, C channels of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.functional import layer_norm

from cardionets_core.models.volumes import (
    Doubling,
    Halving,
    ResBlock,
    draw_default_weights,
    make_middle,
    make_norm,
)

LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE = -30.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """An independent Gaussian of every value of a latent.

    Attributes:
        mean_BZTHW: float32.
        log_variance_BZTHW: float32, in [-30, 20].
    """

    mean_BZTHW: torch.Tensor
    log_variance_BZTHW: torch.Tensor


def normalise_latent(latent_BZTHW: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over all values of each latent, float32."""
    return layer_norm(latent_BZTHW.float(), latent_BZTHW.shape[1:])


def draw_latent(
    posterior: Posterior,
    *,
    noise_BZTHW: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """``normalise_latent(mean + sd * noise)``, float32 ``[B, Z, T, H, W]``.

    Args:
        posterior: from ``CmrTokenizer.encode``, or from a cache.
        noise_BZTHW: standard normal values; or
        generator: a CPU generator to draw them from.

    Raises:
        ValueError: both are given, or neither.
    """
    mean = posterior.mean_BZTHW.float()
    if (noise_BZTHW is None) == (generator is None):
        raise ValueError("a latent is drawn with either noise or a generator")
    if noise_BZTHW is None:
        noise_BZTHW = torch.randn(mean.shape, generator=generator)
    deviation = (0.5 * posterior.log_variance_BZTHW.float()).exp()
    return normalise_latent(mean + deviation * noise_BZTHW.to(mean))


class CmrTokenizer(nn.Module):
    """A convolutional encoder and decoder with attention in their middles.

    Args:
        channels: C of the first level.
        multipliers: C of each level in units of ``channels``; one halving of the plane between two levels.
        blocks: residual blocks of an encoder's level; a decoder's level has twice as many.
        latent: Z.
        groups: of the norms.
        heads: of the attention.
        time_halvings: how many of the halvings, the last ones, also halve the frames.
    """

    def __init__(
        self,
        *,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        latent: int,
        groups: int,
        heads: int,
        time_halvings: int,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        halvings = len(widths) - 1
        in_time = [step >= halvings - time_halvings for step in range(halvings)]

        down: list[nn.Module] = [nn.Conv3d(1, channels, 3, padding=1)]
        width = channels
        for level, target in enumerate(widths):
            for _ in range(blocks):
                down.append(ResBlock(width, target, groups=groups))
                width = target
            if level < halvings:
                down.append(Halving(width, in_time=in_time[level]))
        self.encoder = nn.Sequential(
            *down,
            make_middle(width, heads=heads, groups=groups),
            make_norm(width, groups),
            nn.SiLU(),
            nn.Conv3d(width, 2 * latent, 3, padding=1),
            nn.Conv3d(2 * latent, 2 * latent, 1),
        )

        up: list[nn.Module] = [nn.Conv3d(latent, latent, 1), nn.Conv3d(latent, width, 3, padding=1)]
        up.append(make_middle(width, heads=heads, groups=groups))
        for level in reversed(range(len(widths))):
            for _ in range(2 * blocks):
                up.append(ResBlock(width, widths[level], groups=groups))
                width = widths[level]
            if level > 0:
                up.append(Doubling(width, in_time=in_time[level - 1]))
        self.decoder = nn.Sequential(
            *up, make_norm(width, groups), nn.SiLU(), nn.Conv3d(width, 1, 3, padding=1)
        )

    @property
    def last_weight(self) -> nn.Parameter:
        """Kernel of the decoder's last layer, where the adversarial weight compares gradients."""
        return cast(nn.Parameter, self.decoder[-1].weight)

    def forward(self, cine_BFYX: torch.Tensor, noise_BZTHW: torch.Tensor) -> torch.Tensor:
        """Encode, draw with the given noise, decode: ``[B, F, Y, X]``."""
        return self.decode(draw_latent(self.encode(cine_BFYX), noise_BZTHW=noise_BZTHW))

    def encode(self, cine_BFYX: torch.Tensor) -> Posterior:
        """The Gaussian of each cine's latent, not normalised."""
        mean, log_variance = self.encoder(cine_BFYX[:, None]).float().chunk(2, dim=1)
        return Posterior(
            mean_BZTHW=mean,
            log_variance_BZTHW=log_variance.clamp(LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE),
        )

    def draw(
        self,
        posterior: Posterior,
        *,
        noise_BZTHW: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """``draw_latent``."""
        return draw_latent(posterior, noise_BZTHW=noise_BZTHW, generator=generator)

    def decode(self, latent_BZTHW: torch.Tensor) -> torch.Tensor:
        """Cines of normalised latents, ``[B, F, Y, X]``; not bounded to [-1, 1]."""
        return self.decoder(latent_BZTHW)[:, 0]

    def draw_weights(self, generator: torch.Generator) -> None:
        """PyTorch's own initialisation, from a generator; then kernels lie in memory with channels last.

        That changes no value. Convolutions take the order from their kernels, and are faster in it.
        """
        draw_default_weights(self, generator)
        for parameter in self.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
