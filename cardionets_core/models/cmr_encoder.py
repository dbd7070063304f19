"""The CMR encoder C: a transformer over the patches of a four-chamber cine (SCIENCE section 2).

Comes in: cines in [-1, 1]. Goes out: a feature of each cine, or tokens of the visible patches.

Legend: B rows, F frames, Y rows and X columns of pixels, P patches, V visible patches, S values of a patch,
D width.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.masking import gather_patches
from cardionets_core.models.patches import patchify_cine
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.positions import sincos_2d, with_zero_rows
from cardionets_core.models.transformer import make_blocks

EPSILON = 1e-6


class CmrEncoder(nn.Module):
    """Frames are channels of the patch embedding; a CLS token stands in front.

    Args:
        frames: F.
        pixels: rows and columns of a cine.
        patch: rows and columns of a patch.
        width: D.
        depth: number of blocks.
        heads: heads of each block.
    """

    def __init__(self, *, frames: int, pixels: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch = patch
        side = pixels // patch
        self.patches = side * side
        self.embed = nn.Conv2d(frames, width, kernel_size=patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(with_zero_rows(sincos_2d(side, width), before=1, after=0))
        self.per_row = PerRow()
        self.blocks = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """Feature of each cine: CLS of the last block, without the final norm, ``[B, D]``."""
        return self.tokens(cine_BFYX)[:, 0]

    def tokens(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """CLS and all patches after the last block, before the final norm: ``[B, 1 + P, D]``."""
        position_BPD = self.per_row(self.position, len(cine_BFYX))
        return self._transform(self._embed(cine_BFYX, position_BPD), position_BPD)

    def patches_of(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """Patches as masks count them, ``[B, P, S]``, in the order of ``patchify_cine``."""
        return patchify_cine(cine_BFYX, self.patch)

    def visible_tokens(self, cine_BFYX: torch.Tensor, visible_BV: torch.Tensor) -> torch.Tensor:
        """CLS and the visible patches, normalised, ``[B, 1 + V, D]``; hidden patches are not attended to.

        Args:
            cine_BFYX: cines.
            visible_BV: int64, indices of the visible patches.
        """
        position_BPD = self.per_row(self.position, len(cine_BFYX))
        embedded_BVD = gather_patches(self._embed(cine_BFYX, position_BPD), visible_BV)
        return self.norm(self._transform(embedded_BVD, position_BPD))

    def _embed(self, cine_BFYX: torch.Tensor, position_BPD: torch.Tensor) -> torch.Tensor:
        return self.embed(cine_BFYX).flatten(2).transpose(1, 2) + position_BPD[:, 1:]

    def _transform(self, embedded_BVD: torch.Tensor, position_BPD: torch.Tensor) -> torch.Tensor:
        cls_BD = self.per_row(self.cls, len(embedded_BVD)) + position_BPD[:, 0]
        return self.blocks(torch.cat([cls_BD[:, None], embedded_BVD], dim=1))
