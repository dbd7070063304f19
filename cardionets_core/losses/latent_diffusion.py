"""The diffusion process of a whole latent, and the loss of predicting its noise (arXiv 2112.10752).

Comes in: clean latents, a model that predicts. Goes out: one value a row, or one denoising step. All values
of a row share one time. Times count from 0, the least noisy. Tables are float64, latents float32.

Legend: B rows, Z channels, T frames, H rows and W columns of a latent; of tables, T is times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cardionets_core.losses.diffusion import LARGEST, DiffusionProcess

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a noisy latent ``[B, Z, T, H, W]`` and the training process's time of each row, to its noise."""


def scaled_linear_signal(steps: int = STEPS) -> torch.Tensor:
    """abar, float64 ``[T]``: the roots of beta run evenly from ``sqrt(.00085)`` to ``sqrt(.012)``."""
    root_T = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, steps, dtype=torch.float64)
    return (1.0 - root_T.square()).cumprod(dim=0)


class LatentProcess:
    """Gaussian noise is added to whole latents, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise``.

    Args:
        signal_T: abar, float64, falling; None is ``scaled_linear_signal()``.
        times: the training process's time of each time of this process; None counts from 0.

    Raises:
        ValueError: fewer than two times.
    """

    def __init__(self, signal_T: torch.Tensor | None = None, times: tuple[int, ...] | None = None) -> None:
        signal_T = scaled_linear_signal() if signal_T is None else signal_T
        self.times = tuple(range(len(signal_T))) if times is None else times
        self.signal_T = signal_T
        self._tables = DiffusionProcess(signal_T, self.times)

    def respaced(self, count: int) -> LatentProcess:
        """The process at ``count`` of its times, evenly spread, both ends among them.

        Raises:
            ValueError: ``count`` is not between 2 and T.
        """
        short = self._tables.respaced(count)
        return LatentProcess(short.signal_T, short.times)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, *, time_B: torch.Tensor) -> torch.Tensor:
        """Noisy latents; ``time_B`` is int64, an index into ``times`` for all values of a row."""
        return self._tables.add_noise(clean, noise, time=time_B.reshape(-1, *(1,) * (clean.dim() - 2)))

    def step(
        self,
        noisy: torch.Tensor,
        predicted_noise: torch.Tensor,
        *,
        index: int,
        noise: torch.Tensor | None = None,
        eta: float = 0.0,
    ) -> torch.Tensor:
        """One step from time ``index`` to the one before (arXiv 2010.02502, equation 12).

        ``sqrt(abar') x_0 + sqrt(1 - abar' - v) noise' + sqrt(v) noise``. ``x_0`` is the clean latent that the
        prediction implies, bounded to 10 SD of a normalised latent; ``noise'`` is the rest of ``noisy``, so
        that a bound moves both; ``v`` is eta^2 times the posterior's variance. An eta of 1 is the ancestral
        step at any spacing of the times. From time 0 it is the clean latent, without noise.

        Args:
            noisy: of any shape.
            predicted_noise: as ``noisy``.
            index: time of ``noisy`` in this process.
            noise: standard normal, as ``noisy``; not read where eta or the index is 0.
            eta: share of the ancestral noise, 0 to 1.

        Raises:
            ValueError: eta lies outside 0 to 1, or noise is wanted and there is none.
        """
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"an eta of {eta}; it lies between 0 and 1")
        signal = float(self.signal_T[index])
        clean = (noisy - (1.0 - signal) ** 0.5 * predicted_noise) / signal**0.5
        clean = clean.clamp(-LARGEST, LARGEST)
        if index == 0:
            return clean
        before = float(self.signal_T[index - 1])
        inside = (noisy - signal**0.5 * clean) / (1.0 - signal) ** 0.5
        variance = eta**2 * float(self._tables.beta_T[index]) * (1.0 - before) / (1.0 - signal)
        mean = before**0.5 * clean + (1.0 - before - variance) ** 0.5 * inside
        if eta == 0.0:
            return mean
        if noise is None:
            raise ValueError(f"a step with an eta of {eta} needs noise")
        return mean + variance**0.5 * noise


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDiffusionDraw:
    """Random times and noise of one batch.

    Attributes:
        time_B: int64, an index into the process's times.
        noise_BZTHW: standard normal.
    """

    time_B: torch.Tensor
    noise_BZTHW: torch.Tensor

    def to(self, device: torch.device) -> LatentDiffusionDraw:
        """The same draw on a device."""
        return LatentDiffusionDraw(time_B=self.time_B.to(device), noise_BZTHW=self.noise_BZTHW.to(device))


def draw_latent_diffusion(
    shape_BZTHW: tuple[int, ...], *, process: LatentProcess, generator: torch.Generator
) -> LatentDiffusionDraw:
    """A uniform time for each row and standard normal noise, from a CPU generator."""
    return LatentDiffusionDraw(
        time_B=torch.randint(len(process.times), shape_BZTHW[:1], generator=generator),
        noise_BZTHW=torch.randn(shape_BZTHW, generator=generator),
    )


def latent_diffusion_loss(
    predict: Predict, latent_BZTHW: torch.Tensor, *, process: LatentProcess, draw: LatentDiffusionDraw
) -> torch.Tensor:
    """Mean squared error of the predicted noise of each row, float32 ``[B]``; 1 for a prediction of 0.

    Args:
        predict: from noisy latents and the training process's time of each row to their noise.
        latent_BZTHW: normalised latents.
        process: the training process.
        draw: on the latents' device.
    """
    noisy = process.add_noise(latent_BZTHW.float(), draw.noise_BZTHW, time_B=draw.time_B)
    original_B = torch.tensor(process.times, device=noisy.device)[draw.time_B]
    error = (draw.noise_BZTHW - predict(noisy, original_B).float()).square()
    return error.mean(dim=tuple(range(1, error.dim())))
