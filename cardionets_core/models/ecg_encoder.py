"""The ECG encoder E: a transformer over the patches of all leads (SCIENCE section 2; after ST-MEM).

Comes in: standardised windows. Goes out: a feature of each window, or tokens of the visible patches.

Legend: B rows, L leads, T samples, P patches of a lead, V visible patches of a lead, S samples of a patch,
D width.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.masking import gather_patches
from cardionets_core.models.patches import patchify_ecg
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.positions import sincos_1d, with_zero_rows
from cardionets_core.models.transformer import make_blocks

EPSILON = 1e-5


class EcgEncoder(nn.Module):
    """Each lead is a sequence SEP, patches, SEP; all leads attend to each other.

    Args:
        leads: L.
        patch: samples of a patch.
        patches: P of the full window; shorter windows are legal.
        width: D.
        depth: number of blocks.
        heads: heads of each block.
    """

    def __init__(self, *, leads: int, patch: int, patches: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch = patch
        self.patches = patches
        self.embed = nn.Sequential(
            nn.LayerNorm(patch, eps=EPSILON), nn.Linear(patch, width), nn.LayerNorm(width, eps=EPSILON)
        )
        self.position = nn.Parameter(with_zero_rows(sincos_1d(patches, width), before=1, after=1))
        self.separator = nn.Parameter(torch.zeros(width))
        self.lead = nn.Parameter(torch.zeros(leads, width))
        self.per_row = PerRow()
        self.blocks = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        """Feature of each window: the normalised mean over leads and patches, ``[B, D]``."""
        return self.feature_and_tokens(ecg_BLT)[0]

    def feature_and_tokens(self, ecg_BLT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``forward`` and ``tokens`` give, in one pass."""
        tokens_BLPD = self.tokens(ecg_BLT)
        return self.norm(tokens_BLPD.mean(dim=(1, 2))), tokens_BLPD

    def tokens(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        """Tokens of all patches after the last block, without SEP, not normalised: ``[B, L, P, D]``."""
        patches_BLPS = patchify_ecg(ecg_BLT, self.patch)
        count = patches_BLPS.shape[2]
        if not 0 < count <= self.patches:
            raise ValueError(f"{count} patches in a lead; the encoder takes 1 to {self.patches}")
        # The size, and not len(): that is a plain number, and an exported graph would take no other batch.
        position_BPD = self.per_row(self.position, patches_BLPS.shape[0])
        embedded = self.embed(patches_BLPS) + position_BPD[:, None, 1 : count + 1]
        return self._transform(embedded, position_BPD)[:, :, 1:-1]

    def patches_of(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        """Patches as masks count them, ``[B, L, P, S]``: each lead has a mask of its own."""
        return patchify_ecg(ecg_BLT, self.patch)

    def visible_tokens(self, ecg_BLT: torch.Tensor, visible_BLV: torch.Tensor) -> torch.Tensor:
        """Tokens of the visible patches alone, each normalised; the rest of the window is never read.

        Args:
            ecg_BLT: windows.
            visible_BLV: int64, indices of the visible patches of each lead.

        Returns:
            ``[B, L, V + 2, D]``: SEP, the visible patches in the order of the indices, SEP.
        """
        patches_BLVS = gather_patches(patchify_ecg(ecg_BLT, self.patch), visible_BLV)
        position_BPD = self.per_row(self.position, patches_BLVS.shape[0])
        place_BLV = (visible_BLV + 1).flatten(1)
        places_BLVD = gather_patches(position_BPD, place_BLV).unflatten(1, visible_BLV.shape[1:])
        embedded = self.embed(patches_BLVS) + places_BLVD
        return self.norm(self._transform(embedded, position_BPD))

    def _transform(self, embedded_BLVD: torch.Tensor, position_BPD: torch.Tensor) -> torch.Tensor:
        """Add SEP and lead vectors and run the blocks over all leads together: ``[B, L, V + 2, D]``."""
        batch, leads, _, width = embedded_BLVD.shape
        separator_BD = self.per_row(self.separator, batch)
        left = (separator_BD + position_BPD[:, 0])[:, None, None].expand(batch, leads, 1, width)
        right = (separator_BD + position_BPD[:, -1])[:, None, None].expand(batch, leads, 1, width)
        lead_BLD = self.per_row(self.lead, batch)
        tokens = torch.cat([left, embedded_BLVD, right], dim=2) + lead_BLD[:, :, None]
        return self.blocks(tokens.flatten(1, 2)).unflatten(1, (leads, -1))
