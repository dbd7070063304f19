"""Scale and bias of the pairwise sigmoid loss: learned, and averaged over the sites (SCIENCE 4, 5.2e).

Legend: B rows of one side, N of the other.
"""

from __future__ import annotations

import torch
from torch import nn

FIRST_SCALE = 10.0
FIRST_BIAS = -10.0


class AlignScale(nn.Module):
    """Cosines to logits: ``a s + b``, from a = 10 and b = -10, so that the many unlike pairs begin right."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), FIRST_SCALE))
        self.bias = nn.Parameter(torch.full((1,), FIRST_BIAS))

    def draw_weights(self, generator: torch.Generator) -> None:
        """Nothing is drawn; the first values are the same for every seed."""

    def forward(self, cosine_BN: torch.Tensor) -> torch.Tensor:
        """Logits ``[B, N]``."""
        return self.scale * cosine_BN + self.bias
