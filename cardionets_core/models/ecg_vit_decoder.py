"""The decoder of the earlier generation's masked autoencoder of ECGs. It is used in pretraining only.

Comes in: normalised tokens of the visible patches and their indices. Goes out: every patch, reconstructed.

Legend: B rows, N patches of all leads together, lead by lead, V visible ones of them, S samples of a patch,
D encoder's width.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.masking import scatter_tokens
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.positions import FixedTable, sincos_grid, with_zero_rows
from cardionets_core.models.transformer import make_blocks

EPSILON = 1e-6


class EcgVitDecoder(nn.Module):
    """Reconstructs the patches of all leads together from the visible ones and CLS.

    Args:
        leads: L.
        patch: samples of a patch.
        patches: P of a lead of the full window; no other length is reconstructed.
        encoder_width: D.
        width: of the decoder.
        depth: number of blocks.
        heads: heads of each block.
    """

    def __init__(
        self, *, leads: int, patch: int, patches: int, encoder_width: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.patches = leads * patches
        self.embed = nn.Linear(encoder_width, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.per_row = PerRow()
        self.table = FixedTable(with_zero_rows(sincos_grid(leads, patches, width), before=1, after=0))
        self.blocks = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.predict = nn.Linear(width, patch)

    def forward(self, tokens_B1VD: torch.Tensor, visible_BV: torch.Tensor) -> torch.Tensor:
        """Reconstruct all patches.

        Args:
            tokens_B1VD: ``[B, 1 + V, D]``: CLS, visible patches.
            visible_BV: int64, indices of the visible patches.

        Returns:
            ``[B, N, S]``.
        """
        embedded = self.embed(tokens_B1VD)
        blank = self.per_row(self.hidden, len(embedded))[:, None]
        full = scatter_tokens(embedded[:, 1:], visible_BV, blank=blank, patches=self.patches)
        decoded = self.blocks(self.table(torch.cat([embedded[:, :1], full], dim=1)))
        return self.predict(self.norm(decoded[:, 1:]))
