"""The fusion head F: labels from an ECG and a cine together (SCIENCE section 2).

Comes in: tokens of both encoders. Goes out: logits.

Legend: B rows, N ECG tokens (averaged over leads), M cine tokens, D width, K logits.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.transformer import make_blocks

EPSILON = 1e-6
DROPOUT = 0.1
DROP_PATH = 0.1


class FusionHead(nn.Module):
    """All tokens attend to each other; their normalised mean is read by one linear map.

    Args:
        width: D.
        depth: number of blocks.
        heads: heads of each block.
        outputs: K.
    """

    def __init__(self, *, width: int, depth: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.blocks = make_blocks(
            width, depth=depth, heads=heads, epsilon=EPSILON, dropout=DROPOUT, drop_path=DROP_PATH
        )
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.out = nn.Linear(width, outputs)

    def forward(self, ecg_BND: torch.Tensor, cmr_BMD: torch.Tensor) -> torch.Tensor:
        """Logits, ``[B, K]``."""
        tokens = self.blocks(torch.cat([ecg_BND, cmr_BMD], dim=1))
        return self.out(self.norm(tokens.mean(dim=1)))
