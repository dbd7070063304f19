"""The diffusion head DH: from a noisy token, a time and z to the noise in it (SCIENCE 2; arXiv 2406.11838).

It keeps the patients' axis in front, so that per-patient gradients can be taken (SCIENCE section 6.6).
The residual stream is float32 under autocast too: it overflows in half precision.

Legend: B rows, M tokens of a row, K values of a token, D width of z, E own width.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from cardionets_core.models.transformer import initialise

EPSILON = 1e-6
TIME_WIDTH = 256
LONGEST_PERIOD = 10_000.0


class DiffusionBlock(nn.Module):
    """``x + gate * MLP(norm(x) * (1 + scale) + shift)``; shift, scale and gate follow from time and z.

    Args:
        width: E.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, stream_BME: torch.Tensor, given_BME: torch.Tensor) -> torch.Tensor:
        """``[B, M, E]``, float32."""
        shift, scale, gate = self.modulation(given_BME).float().chunk(3, dim=-1)
        return stream_BME + gate * self.mlp(self.norm(stream_BME) * (1.0 + scale) + shift).float()


class DiffusionHead(nn.Module):
    """Predicts the noise of a token and, for each value, where its variance lies between two bounds.

    Args:
        token_width: K.
        condition: D.
        width: E.
        depth: blocks.
        times: of the training process, T.
    """

    def __init__(self, *, token_width: int, condition: int, width: int, depth: int, times: int) -> None:
        super().__init__()
        self.token_width = token_width
        self.register_buffer("time_table", time_features(torch.arange(times)), persistent=False)
        self.time_mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.condition_layer = nn.Linear(condition, width)
        self.embed = nn.Linear(token_width, width)
        self.blocks = nn.ModuleList(DiffusionBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.out = nn.Linear(width, 2 * token_width)

    def forward(self, noisy_BMK: torch.Tensor, time_BM: torch.Tensor, z_BMD: torch.Tensor) -> torch.Tensor:
        """Noise and variance logits, float32 ``[B, M, 2 K]``.

        Args:
            noisy_BMK: noisy tokens.
            time_BM: int64, the training process's time of each, from 0 to T - 1.
            z_BMD: from the generator.
        """
        return self.predict(noisy_BMK, self.time(time_BM) + self.condition(z_BMD))

    def time(self, time: torch.Tensor) -> torch.Tensor:
        """The part that depends on time alone: ``[...]`` gives float32 ``[..., E]``."""
        return self.time_mlp(self.get_buffer("time_table")[time]).float()

    def condition(self, z: torch.Tensor) -> torch.Tensor:
        """The part that depends on z alone: ``[..., D]`` gives float32 ``[..., E]``."""
        return self.condition_layer(z).float()

    def predict(self, noisy_BMK: torch.Tensor, given_BME: torch.Tensor) -> torch.Tensor:
        """``forward`` with the sum of ``time`` and ``condition``, which a sampler computes once and keeps."""
        stream = self.embed(noisy_BMK).float()
        for block in self.blocks:
            stream = block(stream, given_BME)
        shift, scale = self.modulation(given_BME).float().chunk(2, dim=-1)
        return self.out(self.norm(stream) * (1.0 + scale) + shift).float()

    def draw_weights(self, generator: torch.Generator) -> None:
        """As every transformer, but the time MLP N(0, .02), and the modulations and the output layer zero."""
        initialise(self, generator)
        for layer in self.time_mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02, generator=generator)
        for name, parameter in self.named_parameters():
            if "modulation" in name or name.startswith("out."):
                nn.init.zeros_(parameter)


def time_features(time: torch.Tensor) -> torch.Tensor:
    """``[cos(t w_i), sin(t w_i)]``, ``w_i = 10000^(-i/128)``, i < 128: ``[...]`` to float32 ``[..., 256]``.

    Angles are float64: in float32 those of late times would be 3e-5 off.
    """
    half = TIME_WIDTH // 2
    places = torch.arange(half, device=time.device, dtype=torch.float64)
    angles = time.double()[..., None] * torch.exp(-math.log(LONGEST_PERIOD) / half * places)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()
