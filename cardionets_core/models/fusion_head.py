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
        ecg_width: of the ECG tokens, D by default; tokens of another width are first mapped to D.
        cmr_width: of the cine tokens, likewise.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        outputs: int,
        ecg_width: int | None = None,
        cmr_width: int | None = None,
    ) -> None:
        super().__init__()
        self.ecg_in = _to_width(ecg_width, width)
        self.cmr_in = _to_width(cmr_width, width)
        self.blocks = make_blocks(
            width, depth=depth, heads=heads, epsilon=EPSILON, dropout=DROPOUT, drop_path=DROP_PATH
        )
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.out = nn.Linear(width, outputs)

    def forward(self, ecg_BND: torch.Tensor, cmr_BMD: torch.Tensor) -> torch.Tensor:
        """Logits, ``[B, K]``; each kind of tokens in its own width."""
        tokens = self.blocks(torch.cat([self.ecg_in(ecg_BND), self.cmr_in(cmr_BMD)], dim=1))
        return self.out(self.norm(tokens.mean(dim=1)))


def _to_width(given: int | None, width: int) -> nn.Module:
    return nn.Identity() if given in (None, width) else nn.Linear(int(given or 0), width)
