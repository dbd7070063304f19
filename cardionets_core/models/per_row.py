"""A bare parameter's door into the computation of a batch: one view of it for each row.

Tokens and tables that broadcast over a batch have no input that carries the batch, so nothing could tell
which row moved them. Behind this door each row has a view of its own, and a hook on the module sees the
gradient of every row. The values, and their summed gradient, are those of a broadcast.

Legend: B rows; ``...`` the axes of a parameter.
"""

from __future__ import annotations

import torch
from torch import nn


class PerRow(nn.Module):
    """Has neither parameters nor buffers, so it leaves a model's names as they are."""

    gives_each_row_a_view = True

    def forward(self, parameter: torch.Tensor, rows: int) -> torch.Tensor:
        """``[...]`` to ``[B, ...]``, without a copy."""
        return parameter.expand(rows, *parameter.shape)
