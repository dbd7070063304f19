"""Sine-cosine position tables; a fixed table lives in a module of its own that has no parameters.

Legend: P positions, D width.
"""

from __future__ import annotations

import torch
from torch import nn


def sincos_1d(positions: int, width: int) -> torch.Tensor:
    """Row p is ``[sin(p w_i), cos(p w_i)]`` with ``w_i = 10000^(-2i/D)``, i < D/2 (arXiv 1706.03762, 3.5).

    Returns:
        float32 ``[P, D]``.
    """
    return _sincos(torch.arange(positions, dtype=torch.float64), width)


def sincos_2d(side: int, width: int) -> torch.Tensor:
    """Table of a ``side x side`` grid, as ``sincos_grid``: float32 ``[side * side, D]``."""
    return sincos_grid(side, side, width)


def sincos_grid(rows: int, columns: int, width: int) -> torch.Tensor:
    """Table of a grid, row by row: half of the width for the row, half for the column.

    Returns:
        float32 ``[rows * columns, D]``.
    """
    row = torch.arange(rows, dtype=torch.float64)[:, None].expand(rows, columns).flatten()
    column = torch.arange(columns, dtype=torch.float64)[None, :].expand(rows, columns).flatten()
    return torch.cat([_sincos(row, width // 2), _sincos(column, width - width // 2)], dim=1)


def with_zero_rows(table_PD: torch.Tensor, *, before: int, after: int) -> torch.Tensor:
    """The table with zero rows for tokens without a place (CLS, SEP)."""
    width = table_PD.shape[1]
    return torch.cat([table_PD.new_zeros(before, width), table_PD, table_PD.new_zeros(after, width)])


class FixedTable(nn.Module):
    """A table that is neither trained nor saved: it follows from its sizes.

    Args:
        table_PD: the values.
    """

    def __init__(self, table_PD: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table_PD, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Add the table to ``[..., P, D]``."""
        return tokens + self.get_buffer("table").to(tokens.dtype)


def _sincos(positions_P: torch.Tensor, width: int) -> torch.Tensor:
    if width % 2:
        raise ValueError(f"a sine-cosine table needs an even width, not {width}")
    rates = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions_P[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
