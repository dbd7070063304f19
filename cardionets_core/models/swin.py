"""The earlier generation's CMR tower: a Swin transformer over the pixels of one view (arXiv 2103.14030).

Comes in: cines in [-1, 1], square, of any size. Goes out: a feature of each cine, or a token of each unit,
the square of pixels that one position of the last stage stands for. It is pretrained as SimMIM says (arXiv
2111.09886): a learned token stands in for every embedded patch of a hidden unit. The residual stream is
float32 under autocast too.

Legend: B rows, F frames, Y rows and X columns of pixels or of a stage's grid, C its width, W windows of the
grid, N positions of a window, A heads, R distances of two positions of a window; P units, H hidden units,
D width of the last stage, S values of a unit.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from cardionets_core.models.patches import patchify_cine
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.transformer import MLP_RATIO

EPSILON = 1e-5


class WindowAttention(nn.Module):
    """Positions attend to those of their own window, with a learned bias for each distance and head.

    Args:
        width: C, a multiple of the heads.
        heads: A.
        grid: rows and columns of positions.
        window: rows and columns of a window; ``grid`` is a multiple of it.
        shift: by how many positions the windows lie further down and to the right, cyclically; what only
            the wrap brings into one window does not attend to each other.
    """

    def __init__(self, width: int, *, heads: int, grid: int, window: int, shift: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} is not a multiple of its {heads} heads")
        self.heads = heads
        self.window = window
        self.shift = shift
        self.qkv = nn.Linear(width, 3 * width)
        self.relative_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.per_row = PerRow()
        self.out = nn.Linear(width, width)
        self.register_buffer("distance", _distances(window), persistent=False)
        if shift:
            self.register_buffer("apart", _kept_apart(grid, window, shift), persistent=False)

    def forward(self, grid_BYXC: torch.Tensor) -> torch.Tensor:
        """``[B, Y, X, C]`` to ``[B, Y, X, C]``."""
        # The linear maps keep the batch in front, so that a row's gradient can be told from the others'.
        qkv = _windows(_rolled(self.qkv(grid_BYXC), -self.shift), self.window)
        query, key, value = qkv.unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self._bias(len(grid_BYXC)).to(query.dtype)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(2, 3).flatten(3)
        return self.out(_rolled(_grid(mixed, self.window), self.shift))

    def _bias(self, rows: int) -> torch.Tensor:
        """What is added to the scores: ``[B, W, A, N, N]``, or one for all windows, ``[B, 1, A, N, N]``."""
        distance_NN = self.get_buffer("distance")
        bias_BRA = self.per_row(self.relative_bias, rows)
        bias = bias_BRA.index_select(1, distance_NN.flatten()).unflatten(1, distance_NN.shape)
        bias_B1ANN = bias.permute(0, 3, 1, 2)[:, None]
        if not self.shift:
            return bias_B1ANN
        return bias_B1ANN.masked_fill(self.get_buffer("apart")[:, None], -math.inf)


class SwinBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``; exact GELU.

    Args:
        width: C.
        heads: A.
        grid: rows and columns of positions.
        window: rows and columns of a window.
        shift: of the windows.
    """

    def __init__(self, width: int, *, heads: int, grid: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=EPSILON)
        self.attention = WindowAttention(width, heads=heads, grid=grid, window=window, shift=shift)
        self.norm_mlp = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, grid_BYXC: torch.Tensor) -> torch.Tensor:
        """``[B, Y, X, C]`` to ``[B, Y, X, C]``."""
        grid_BYXC = grid_BYXC + self.attention(self.norm_attention(grid_BYXC))
        return grid_BYXC + self.mlp(self.norm_mlp(grid_BYXC))


class PatchMerging(nn.Module):
    """Each 2 x 2 positions become one of twice the width.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=EPSILON)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, grid_BYXC: torch.Tensor) -> torch.Tensor:
        """``[B, Y, X, C]`` to ``[B, Y / 2, X / 2, 2 C]``; the four lie in the order (column, row)."""
        batch, rows, columns, width = grid_BYXC.shape
        squares = grid_BYXC.reshape(batch, rows // 2, 2, columns // 2, 2, width)
        merged = self.reduce(self.norm(squares.permute(0, 1, 3, 4, 2, 5).flatten(3)))
        return merged.to(grid_BYXC.dtype)


class CmrSwin(nn.Module):
    """Frames are channels of the patch embedding; every stage after the first has half the grid.

    Args:
        frames: F.
        pixels: rows and columns that a cine is resized to.
        patch: rows and columns of a patch.
        width: of the first stage; each further one has twice that of the one before.
        depths: blocks of each stage; every second one has shifted windows.
        heads: of each stage's blocks.
        window: rows and columns of a window, in positions; a smaller grid is one window.

    Attributes:
        width: D.
        unit: rows and columns of pixels of a unit.
        side: units in a row of the cine.
        patches: P, units of the cine.

    Raises:
        ValueError: the sizes do not fit into each other.
    """

    def __init__(
        self,
        *,
        frames: int,
        pixels: int,
        patch: int,
        width: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
    ) -> None:
        super().__init__()
        grids = _stage_grids(pixels, patch=patch, stages=len(depths), window=window)
        self.frames = frames
        self.pixels = pixels
        self.width = width * 2 ** (len(depths) - 1)
        self.unit = patch * 2 ** (len(depths) - 1)
        self.side = grids[-1]
        self.patches = self.side**2
        self.embed = nn.Conv2d(frames, width, kernel_size=patch, stride=patch)
        self.norm_embed = nn.LayerNorm(width, eps=EPSILON)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.per_row = PerRow()
        self.stages = nn.Sequential()
        for stage, (grid, depth, count) in enumerate(zip(grids, depths, heads, strict=True)):
            within = min(window, grid)
            shifts = [0 if within == grid else place % 2 * (within // 2) for place in range(depth)]
            wide = width * 2**stage
            parts: list[nn.Module] = [PatchMerging(wide // 2)] if stage else []
            parts += [SwinBlock(wide, heads=count, grid=grid, window=within, shift=shift) for shift in shifts]
            self.stages.append(nn.Sequential(*parts))
        self.norm = nn.LayerNorm(self.width, eps=EPSILON)

    def forward(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """Feature of each cine: the mean of its tokens, ``[B, D]``."""
        return self.tokens(cine_BFYX).mean(dim=1)

    def tokens(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """Units after the last stage, normalised, row by row: ``[B, P, D]``."""
        return self._transform(self._embed(cine_BFYX))

    def tokens_hidden(self, cine_BFYX: torch.Tensor, hidden_BH: torch.Tensor) -> torch.Tensor:
        """As ``tokens``, without a look at the pixels of the hidden units of the resized cine.

        Args:
            cine_BFYX: cines.
            hidden_BH: int64, indices of the hidden units.
        """
        embedded = self._embed(cine_BFYX)
        hidden_BP = torch.zeros(len(cine_BFYX), self.patches, dtype=torch.bool, device=cine_BFYX.device)
        hidden = hidden_BP.scatter(1, hidden_BH, True).unflatten(1, (self.side, self.side))
        share = embedded.shape[1] // self.side
        hidden_BYX = hidden.repeat_interleave(share, dim=1).repeat_interleave(share, dim=2)
        token_BC = self.per_row(self.mask_token, len(cine_BFYX))
        return self._transform(torch.where(hidden_BYX[..., None], token_BC[:, None, None], embedded))

    def resized(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """The cine at ``pixels`` x ``pixels``, bilinear; the same object if it is of that size.

        Raises:
            ValueError: the cine is not square.
        """
        rows, columns = cine_BFYX.shape[-2:]
        if rows != columns:
            raise ValueError(f"{rows} x {columns} pixels are not a square cine")
        if rows == self.pixels:
            return cine_BFYX
        size = (self.pixels, self.pixels)
        shrinks = rows > self.pixels
        return interpolate(cine_BFYX, size=size, mode="bilinear", align_corners=False, antialias=shrinks)

    def patches_of(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        """The resized cine in units, values in the order of ``patchify_cine``: ``[B, P, S]``."""
        return patchify_cine(self.resized(cine_BFYX), self.unit)

    def _embed(self, cine_BFYX: torch.Tensor) -> torch.Tensor:
        embedded_BYXC = self.embed(self.resized(cine_BFYX)).permute(0, 2, 3, 1)
        return self.norm_embed(embedded_BYXC.to(self.norm_embed.weight.dtype))

    def _transform(self, embedded_BYXC: torch.Tensor) -> torch.Tensor:
        return self.norm(self.stages(embedded_BYXC)).flatten(1, 2)


class SwinDecoder(nn.Module):
    """Predicts the pixels of each unit from its token by one linear map.

    Args:
        width: D.
        unit: rows and columns of pixels of a unit.
        frames: F.
    """

    def __init__(self, *, width: int, unit: int, frames: int) -> None:
        super().__init__()
        self.predict = nn.Linear(width, unit * unit * frames)

    def forward(self, tokens_BPD: torch.Tensor) -> torch.Tensor:
        """``[B, P, S]``, values of a unit in the order of ``patchify_cine``."""
        return self.predict(tokens_BPD)


def _stage_grids(pixels: int, *, patch: int, stages: int, window: int) -> list[int]:
    """Rows and columns of positions of each stage.

    Raises:
        ValueError: a grid is not whole, or is not whole windows.
    """
    if pixels % patch:
        raise ValueError(f"{pixels} pixels are not a multiple of the patch of {patch}")
    grids = [pixels // patch]
    for _ in range(stages - 1):
        if grids[-1] % 2:
            raise ValueError(f"a grid of {grids[-1]} positions cannot be halved for the next stage")
        grids.append(grids[-1] // 2)
    for grid in grids:
        if grid % min(window, grid):
            raise ValueError(f"a grid of {grid} positions is not a multiple of the window of {window}")
    return grids


def _distances(window: int) -> torch.Tensor:
    """Which bias is that of a query and a key: int64 ``[N, N]``, by rows between them, then columns."""
    place = torch.arange(window)
    apart = place[:, None] - place[None, :] + window - 1
    rows, columns = apart[:, None, :, None], apart[None, :, None, :]
    return (rows * (2 * window - 1) + columns).reshape(window**2, window**2)


def _kept_apart(grid: int, window: int, shift: int) -> torch.Tensor:
    """Pairs of a shifted window of which the wrap brought one, by row or by column: bool ``[W, N, N]``."""
    wrapped = torch.arange(grid) >= grid - shift
    origin_YX = 2 * wrapped[:, None].long() + wrapped[None, :].long()
    origin_WN = _windows(origin_YX[None, :, :, None], window)[0, :, :, 0]
    return origin_WN[:, :, None] != origin_WN[:, None, :]


def _rolled(grid_BYXC: torch.Tensor, shift: int) -> torch.Tensor:
    return torch.roll(grid_BYXC, (shift, shift), dims=(1, 2)) if shift else grid_BYXC


def _windows(grid_BYXC: torch.Tensor, window: int) -> torch.Tensor:
    """``[B, W, N, C]``, row by row."""
    batch, rows, columns, width = grid_BYXC.shape
    cut = grid_BYXC.reshape(batch, rows // window, window, columns // window, window, width)
    return cut.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)


def _grid(windows_BWNC: torch.Tensor, window: int) -> torch.Tensor:
    """The inverse of ``_windows`` for a square grid."""
    batch, count, _, width = windows_BWNC.shape
    side = math.isqrt(count)
    cut = windows_BWNC.reshape(batch, side, side, window, window, width)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(batch, side * window, side * window, width)
