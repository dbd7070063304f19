"""The discriminator of the tokenizer: does a piece of a cine look real? (SCIENCE section 2; off by default.)

It stays at its site. Group norm stands where such networks usually have batch norm: no running statistics.

Legend: B rows, F frames, Y rows and X columns of pixels; T, H, W places of the verdicts.
"""

from __future__ import annotations

import torch
from torch import nn

SLOPE = 0.2
GROUPS = 8


class TokenizerDiscriminator(nn.Module):
    """Five convolutions, each verdict on a piece of the cine of its own.

    Args:
        channels: width of the first layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        n = channels
        self.layers = nn.Sequential(
            nn.Conv3d(1, n, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            *_middle(nn.Conv3d(n, 2 * n, 4, stride=2, padding=1)),
            *_middle(nn.Conv3d(2 * n, 4 * n, (3, 4, 4), stride=2, padding=1)),
            *_middle(nn.Conv3d(4 * n, 8 * n, (1, 4, 4), padding=(0, 1, 1))),
            nn.Conv3d(8 * n, 1, (1, 4, 4), padding=(0, 1, 1)),
        )

    def forward(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """Logits, high where a piece looks real: ``[B, T, H, W]``."""
        return self.layers(cine_BFYX[:, None])[:, 0]

    def draw_weights(self, generator: torch.Generator) -> None:
        """Kernels N(0, .02), biases 0, norms 1 and 0."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                nn.init.normal_(part.weight, std=0.02, generator=generator)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, nn.GroupNorm):
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)


def _middle(conv: nn.Conv3d) -> tuple[nn.Module, ...]:
    return conv, nn.GroupNorm(GROUPS, conv.out_channels), nn.LeakyReLU(SLOPE)
