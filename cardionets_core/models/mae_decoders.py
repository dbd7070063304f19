"""The decoders De and Dc of the masked autoencoders (SCIENCE section 2). They are used in pretraining only.

Comes in: normalised tokens of the visible patches and their indices. Goes out: every patch, reconstructed.

Legend: B rows, L leads, P patches, V visible patches, S values of a patch, D encoder's width, E own width.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.masking import scatter_tokens
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.positions import FixedTable, sincos_1d, sincos_2d, with_zero_rows
from cardionets_core.models.transformer import make_blocks

EPSILON = 1e-6


class EcgDecoder(nn.Module):
    """Reconstructs each lead on its own from its visible patches and its two SEP tokens.

    Args:
        patch: samples of a patch.
        patches: P of a lead.
        encoder_width: D.
        width: E.
        depth: number of blocks.
        heads: heads of each block.
    """

    def __init__(
        self, *, patch: int, patches: int, encoder_width: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.patches = patches
        self.embed = nn.Linear(encoder_width, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.per_row = PerRow()
        self.table = FixedTable(with_zero_rows(sincos_1d(patches, width), before=1, after=1))
        self.blocks = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.predict = nn.Linear(width, patch)

    def forward(self, tokens_BLVD: torch.Tensor, visible_BLV: torch.Tensor) -> torch.Tensor:
        """Reconstruct all patches.

        Args:
            tokens_BLVD: ``[B, L, V + 2, D]``: SEP, visible patches, SEP.
            visible_BLV: int64, indices of the visible patches.

        Returns:
            ``[B, L, P, S]``.
        """
        embedded = self.embed(tokens_BLVD)
        blank = self.per_row(self.hidden, len(embedded))[:, None, None]
        left, visible, right = embedded[:, :, :1], embedded[:, :, 1:-1], embedded[:, :, -1:]
        full = scatter_tokens(visible, visible_BLV, blank=blank, patches=self.patches)
        decoded = self.blocks(self.table(torch.cat([left, full, right], dim=2)))
        return self.predict(self.norm(decoded[:, :, 1:-1]))


class CmrDecoder(nn.Module):
    """Reconstructs the patches of a cine from its visible patches and CLS.

    Args:
        patch: rows and columns of a patch.
        frames: frames of a cine.
        side: patches in a row of the cine; P = side * side.
        encoder_width: D.
        width: E.
        depth: number of blocks.
        heads: heads of each block.
    """

    def __init__(
        self, *, patch: int, frames: int, side: int, encoder_width: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.patches = side * side
        self.embed = nn.Linear(encoder_width, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.per_row = PerRow()
        self.table = FixedTable(with_zero_rows(sincos_2d(side, width), before=1, after=0))
        self.blocks = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.predict = nn.Linear(width, patch * patch * frames)

    def forward(self, tokens_BVD: torch.Tensor, visible_BV: torch.Tensor) -> torch.Tensor:
        """Reconstruct all patches.

        Args:
            tokens_BVD: ``[B, 1 + V, D]``: CLS, visible patches.
            visible_BV: int64, indices of the visible patches.

        Returns:
            ``[B, P, S]``, values of a patch in the order of ``patchify_cine``.
        """
        embedded = self.embed(tokens_BVD)
        blank = self.per_row(self.hidden, len(embedded))[:, None]
        full = scatter_tokens(embedded[:, 1:], visible_BV, blank=blank, patches=self.patches)
        decoded = self.blocks(self.table(torch.cat([embedded[:, :1], full], dim=1)))
        return self.predict(self.norm(decoded[:, 1:]))
