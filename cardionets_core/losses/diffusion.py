"""The diffusion process of a token, and the loss of predicting its noise (SCIENCE 4; arXiv 2102.09672).

Comes in: clean tokens, their z, a head that predicts. Goes out: one value a row, or one denoising step.
Times count from 0, the least noisy. Tables are float64, tokens float32.

Legend: B rows, M tokens of a row, R repeats of each token, N = R M, K values of a token, D width of z,
T times; ``...`` any axes that end with K.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

OFFSET = 0.008
LARGEST_BETA = 0.999
REPEATS = 4
LARGEST = 10.0

Head = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class DiffusionProcess:
    """Gaussian noise is added over T times, ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise``.

    Args:
        signal_T: abar, float64, falling; the share of the variance that is signal.
        times: the training process's time of each time of this process.

    Raises:
        ValueError: fewer than two times.
    """

    def __init__(self, signal_T: torch.Tensor, times: tuple[int, ...]) -> None:
        if len(times) < 2:
            raise ValueError("a diffusion process has at least two times")
        self.times = times
        self.signal_T = signal_T
        before_T = torch.cat([signal_T.new_ones(1), signal_T[:-1]])
        self.beta_T = 1.0 - signal_T / before_T
        variance_T = self.beta_T * (1.0 - before_T) / (1.0 - signal_T)
        # The last step's true variance is 0, which has no logarithm: the one before stands in for it.
        self.lowest_log_variance_T = torch.cat([variance_T[1:2], variance_T[1:]]).log()
        self.highest_log_variance_T = self.beta_T.log()

    def respaced(self, count: int) -> DiffusionProcess:
        """The process at ``count`` of its times, evenly spread, both ends among them.

        Raises:
            ValueError: ``count`` is not between 2 and T.
        """
        total = len(self.times)
        if not 2 <= count <= total:
            raise ValueError(f"{count} of {total} times; take 2 to {total}")
        chosen = [round(place * (total - 1) / (count - 1)) for place in range(count)]
        return DiffusionProcess(self.signal_T[chosen], tuple(self.times[time] for time in chosen))

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, *, time: torch.Tensor) -> torch.Tensor:
        """Noisy tokens; ``time`` is int64 without the axis K."""
        signal = _at(self.signal_T.sqrt(), time)
        return signal * clean + _at((1.0 - self.signal_T).sqrt(), time) * noise

    def mean_before(self, noisy: torch.Tensor, noise: torch.Tensor, *, time: torch.Tensor) -> torch.Tensor:
        """Mean one time earlier, given the noise: ``(x - beta / sqrt(1 - abar) noise) / sqrt(1 - beta)``.

        The same as the posterior's mean by ``x_0``, without that form's cancellation at late times.
        """
        share = _at(self.beta_T / (1.0 - self.signal_T).sqrt(), time)
        return (noisy - share * noise) / _at((1.0 - self.beta_T).sqrt(), time)

    def log_variance(self, logits: torch.Tensor, *, time: torch.Tensor) -> torch.Tensor:
        """Between the posterior's (at -1) and beta (at 1), interpolated in the logarithm."""
        share = (logits + 1.0) / 2.0
        highest, lowest = _at(self.highest_log_variance_T, time), _at(self.lowest_log_variance_T, time)
        return share * highest + (1.0 - share) * lowest

    def step(
        self, noisy: torch.Tensor, prediction: torch.Tensor, *, index: int, noise: torch.Tensor
    ) -> torch.Tensor:
        """One ancestral step from time ``index`` to the one before; from 0 the clean token, without noise.

        The clean token that the prediction implies is bounded to 10 SD of a normalised latent, far from where
        values lie: at late times a small error of the noise is a thousandfold one of the clean token.

        Args:
            noisy: ``[..., K]``.
            prediction: ``[..., 2 K]``, noise and variance logits.
            index: time of ``noisy`` in this process.
            noise: standard normal, as ``noisy``.
        """
        predicted, logits = prediction.chunk(2, dim=-1)
        signal = float(self.signal_T[index])
        clean = ((noisy - (1.0 - signal) ** 0.5 * predicted) / signal**0.5).clamp(-LARGEST, LARGEST)
        if index == 0:
            return clean
        before, beta = float(self.signal_T[index - 1]), float(self.beta_T[index])
        mean = before**0.5 * beta * clean + (1.0 - beta) ** 0.5 * (1.0 - before) * noisy
        time = torch.full(noisy.shape[:-1], index, device=noisy.device)
        return mean / (1.0 - signal) + (0.5 * self.log_variance(logits, time=time)).exp() * noise


def cosine_process(steps: int) -> DiffusionProcess:
    """``abar(s) = cos^2(pi/2 (s + .008) / 1.008)``, s from 0 to 1; beta at most .999 (arXiv 2102.09672)."""
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = ((share + OFFSET) / (1.0 + OFFSET) * math.pi / 2).cos().square()
    beta_T = (1.0 - signal[1:] / signal[:-1]).clamp_max(LARGEST_BETA)
    return DiffusionProcess((1.0 - beta_T).cumprod(dim=0), tuple(range(steps)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionDraw:
    """Random times and noise of one batch; each token is used R times.

    Attributes:
        time_BN: int64 ``[B, R M]``.
        noise_BNK: ``[B, R M, K]``, standard normal.
    """

    time_BN: torch.Tensor
    noise_BNK: torch.Tensor

    def to(self, device: torch.device) -> DiffusionDraw:
        """The same draw on a device."""
        return DiffusionDraw(time_BN=self.time_BN.to(device), noise_BNK=self.noise_BNK.to(device))


def draw_diffusion(
    shape: tuple[int, int, int],
    *,
    process: DiffusionProcess,
    generator: torch.Generator,
    repeats: int = REPEATS,
) -> DiffusionDraw:
    """Uniform times and standard normal noise for tokens of shape (B, M, K), from a CPU generator."""
    rows, tokens, width = shape
    count = repeats * tokens
    return DiffusionDraw(
        time_BN=torch.randint(len(process.times), (rows, count), generator=generator),
        noise_BNK=torch.randn(rows, count, width, generator=generator),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionLoss:
    """The loss of each row, and its two parts; float32 ``[B]``.

    Attributes:
        total_B: ``noise_error_B + bound_B``.
        noise_error_B: mean squared error of the predicted noise.
        bound_B: variational bound in bits per value, which trains the variance alone.
    """

    total_B: torch.Tensor
    noise_error_B: torch.Tensor
    bound_B: torch.Tensor


def diffusion_loss(
    head: Head,
    tokens_BMK: torch.Tensor,
    z_BMD: torch.Tensor,
    *,
    process: DiffusionProcess,
    draw: DiffusionDraw,
) -> DiffusionLoss:
    """``L_i = 1/(R M) sum_{m, r} [ mean_k (noise - predicted)^2 + bound ]`` of each row.

    Args:
        head: from (noisy ``[B, N, K]``, time ``[B, N]``, z ``[B, N, D]``) to ``[B, N, 2 K]``, N = R M.
        tokens_BMK: the clean tokens that are to be predicted.
        z_BMD: of the same tokens.
        process: the training process.
        draw: on the tokens' device.
    """
    repeats = draw.time_BN.shape[1] // tokens_BMK.shape[1]
    clean = tokens_BMK.float().repeat(1, repeats, 1)
    noisy = process.add_noise(clean, draw.noise_BNK, time=draw.time_BN)
    original = torch.tensor(process.times, device=noisy.device)[draw.time_BN]
    predicted, logits = head(noisy, original, z_BMD.repeat(1, repeats, 1)).float().chunk(2, dim=-1)
    error_BN = (draw.noise_BNK - predicted).square().mean(dim=-1)
    bound_BN = variational_bound(
        process, clean=clean, noisy=noisy, draw=draw, predicted=predicted.detach(), logits=logits
    )
    error_B, bound_B = error_BN.mean(dim=1), bound_BN.mean(dim=1)
    return DiffusionLoss(total_B=error_B + bound_B, noise_error_B=error_B, bound_B=bound_B)


def variational_bound(
    process: DiffusionProcess,
    *,
    clean: torch.Tensor,
    noisy: torch.Tensor,
    draw: DiffusionDraw,
    predicted: torch.Tensor,
    logits: torch.Tensor,
) -> torch.Tensor:
    """Divergence of the predicted step from the true one, in bits per value, ``[B, N]``.

    At time 0 it is minus the log density of the clean token: latents are continuous, so the density is not
    made discrete as it is for pixels of 8 bits, and the bound may be negative there.
    """
    time = draw.time_BN
    mean = process.mean_before(noisy, predicted, time=time)
    log_variance = process.log_variance(logits, time=time)
    divergence = gaussian_divergence(
        process.mean_before(noisy, draw.noise_BNK, time=time),
        _at(process.lowest_log_variance_T, time),
        other_mean=mean,
        other_log_variance=log_variance,
    )
    surprise = 0.5 * (math.log(2 * math.pi) + log_variance + (clean - mean).square() * (-log_variance).exp())
    return torch.where((time == 0)[..., None], surprise, divergence).mean(dim=-1) / math.log(2)


def gaussian_divergence(
    mean: torch.Tensor,
    log_variance: torch.Tensor,
    *,
    other_mean: torch.Tensor,
    other_log_variance: torch.Tensor,
) -> torch.Tensor:
    """``KL(N(mean, var) || N(other mean, other var))`` of each value, in nats."""
    ratio = log_variance - other_log_variance
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return 0.5 * (ratio.exp() - 1.0 - ratio + distance)


def _at(table_T: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Values of a table at some times, float32, with an axis for K."""
    return table_T.to(time.device)[time].float()[..., None]
