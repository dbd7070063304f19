"""Sampling of whole latents by one loop of denoising steps (arXiv 2010.02502, 2207.12598).

Comes in: tokens of ECGs and one seed a row. Goes out: latents, normalised as the decoder knows them.

What is reused without changing the result: each block reads the ECG once for all denoising steps, and in the
null half one token stands for all, as equal tokens are attended to alike. Both halves of guidance follow one
trajectory: they share the start noise and the noise of each step.

Legend: B rows, N tokens of an ECG, D their width, Z channels, T frames, H rows and W columns of a latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from cardionets_core.models.cmr_diffusion import CmrDiffusion
from cardionets_core.models.cmr_tokenizer import normalise_latent


class LatentDenoising(Protocol):
    """The diffusion process that the model was trained on."""

    @property
    def times(self) -> tuple[int, ...]:
        """The training process's time of each of its times, ascending."""

    def respaced(self, count: int) -> LatentDenoising:
        """The same process at fewer times."""

    def step(
        self,
        noisy: torch.Tensor,
        predicted_noise: torch.Tensor,
        *,
        index: int,
        noise: torch.Tensor | None,
        eta: float,
    ) -> torch.Tensor:
        """From the time of an index to the one before; noise is not read where eta or the index is 0."""


@torch.no_grad()
def sample_latents(
    model: CmrDiffusion,
    *,
    condition_BND: torch.Tensor,
    process: LatentDenoising,
    steps: int,
    guidance: float,
    eta: float,
    seeds: Sequence[int],
    conditional: bool = True,
) -> torch.Tensor:
    """Sample one latent for each ECG, float32 ``[B, Z, T, H, W]``, each of mean 0 and variance 1.

    The tokenizer's decoder knows latents that are normalised over their whole sample, and so were those that
    the model was trained on: a sample is brought back to that exactly. A row's randomness follows from its
    seed alone, so a row does not depend on the others.

    Args:
        model: in eval mode.
        condition_BND: tokens of ECGs, not normalised.
        process: of training.
        steps: denoising steps.
        guidance: ``noise = unconditional + guidance (conditional - unconditional)``; a guidance of 1 skips
            the unconditional half, one of 0 the conditional half.
        eta: share of the ancestral noise in each step; 0 draws the start noise alone.
        seeds: one for each row.
        conditional: False draws with the null condition alone: what the model draws without any ECG, from the
            same seeds, whatever the guidance.

    Raises:
        ValueError: the model is in training mode, there is not one seed for each row, the steps do not fit,
            or eta lies outside 0 to 1.
    """
    if model.training:
        raise ValueError("sampling needs the model in eval mode")
    rows = len(condition_BND)
    if len(seeds) != rows:
        raise ValueError(f"{len(seeds)} seeds for {rows} rows")
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"an eta of {eta}; it lies between 0 and 1")
    process = process.respaced(steps)
    place = condition_BND.device
    if rows == 0:
        return torch.zeros(0, *model.latent, device=place)
    share = guidance if conditional else 0.0
    reads = None if share == 0.0 else model.read(condition_BND)
    null_reads = None if share == 1.0 else model.read(model.null_tokens(condition_BND[:, :1]))
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    noisy_BZTHW = _noise(draws, model.latent).to(place)
    for index in reversed(range(len(process.times))):
        time_B = torch.full((rows,), process.times[index], device=place)
        noise = None if reads is None else model.predict(noisy_BZTHW, time_B, reads=reads)
        null_noise = None if null_reads is None else model.predict(noisy_BZTHW, time_B, reads=null_reads)
        fresh = _noise(draws, model.latent).to(place) if eta > 0.0 and index > 0 else None
        noisy_BZTHW = process.step(
            noisy_BZTHW, guide_noise(noise, null_noise, guidance=share), index=index, noise=fresh, eta=eta
        )
    return normalise_latent(noisy_BZTHW)


def guide_noise(
    noise: torch.Tensor | None, null_noise: torch.Tensor | None, *, guidance: float
) -> torch.Tensor:
    """``null_noise + guidance (noise - null_noise)``; of one half alone, that half.

    Raises:
        ValueError: there is neither half.
    """
    if noise is not None and null_noise is not None:
        return null_noise + guidance * (noise - null_noise)
    alone = null_noise if noise is None else noise
    if alone is None:
        raise ValueError("guidance needs at least one half")
    return alone


def _noise(draws: Sequence[torch.Generator], latent: tuple[int, ...]) -> torch.Tensor:
    return torch.stack([torch.randn(latent, generator=draw) for draw in draws])
