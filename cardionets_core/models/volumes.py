"""Layers for volumes in time and space: residual blocks, attention over all positions, halving and doubling.

Group norm and SiLU throughout: no statistics of a batch, so a row never depends on its neighbours.

Legend: B rows, C channels, T frames, H rows and W columns.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention

EPSILON = 1e-6


def make_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group norm with one scale and shift for each channel."""
    return nn.GroupNorm(groups, channels, eps=EPSILON)


class ResBlock(nn.Module):
    """Twice norm, SiLU, 3x3x3 convolution, added to the input; a 1x1x1 shortcut where the width changes.

    Args:
        channels: C of the input.
        width: C of the output.
        groups: of the norms.
    """

    def __init__(self, channels: int, width: int, *, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            make_norm(channels, groups),
            nn.SiLU(),
            nn.Conv3d(channels, width, 3, padding=1),
            make_norm(width, groups),
            nn.SiLU(),
            nn.Conv3d(width, width, 3, padding=1),
        )
        self.shortcut = nn.Identity() if channels == width else nn.Conv3d(channels, width, 1)

    def forward(self, volume_BCTHW: torch.Tensor) -> torch.Tensor:
        """``[B, width, T, H, W]``."""
        return self.shortcut(volume_BCTHW) + self.body(volume_BCTHW)


class VolumeAttention(nn.Module):
    """Every position of a volume attends to all others; added to the input.

    Args:
        channels: C.
        heads: of the attention.
        groups: of the norm.
    """

    def __init__(self, channels: int, *, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = make_norm(channels, groups)
        self.query, self.key, self.value, self.out = (nn.Conv3d(channels, channels, 1) for _ in range(4))

    def forward(self, volume_BCTHW: torch.Tensor) -> torch.Tensor:
        """``[B, C, T, H, W]``."""
        normed = self.norm(volume_BCTHW)
        query, key, value = (
            layer(normed).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
            for layer in (self.query, self.key, self.value)
        )
        mixed = scaled_dot_product_attention(query, key, value).transpose(2, 3)
        return volume_BCTHW + self.out(mixed.reshape(normed.shape))


def make_middle(channels: int, *, heads: int, groups: int) -> nn.Sequential:
    """Residual block, attention, residual block."""
    return nn.Sequential(
        ResBlock(channels, channels, groups=groups),
        VolumeAttention(channels, heads=heads, groups=groups),
        ResBlock(channels, channels, groups=groups),
    )


class Halving(nn.Module):
    """Half of the rows and columns, and of the frames where ``in_time``; padded on the far side only.

    Args:
        channels: C.
        in_time: also halve T.
    """

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time
        kernel, stride = ((3, 3, 3), (2, 2, 2)) if in_time else ((1, 3, 3), (1, 2, 2))
        self.conv = nn.Conv3d(channels, channels, kernel, stride=stride)

    def forward(self, volume_BCTHW: torch.Tensor) -> torch.Tensor:
        """``[B, C, T or T / 2, H / 2, W / 2]``."""
        return self.conv(pad(volume_BCTHW, (0, 1, 0, 1, 0, int(self.in_time))))


class Doubling(nn.Module):
    """Each value repeated along rows and columns, and along frames where ``in_time``; then a convolution.

    Args:
        channels: C.
        in_time: also double T.
    """

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, volume_BCTHW: torch.Tensor) -> torch.Tensor:
        """``[B, C, T or 2 T, 2 H, 2 W]``."""
        batch, channels, t, h, w = volume_BCTHW.shape
        times = 2 if self.in_time else 1
        # Repeated by a view: unlike an interpolation's, its gradient is summed in one order on every device.
        wide = volume_BCTHW[:, :, :, None, :, None, :, None].expand(-1, -1, -1, times, -1, 2, -1, 2)
        return self.conv(wide.reshape(batch, channels, times * t, 2 * h, 2 * w))


def draw_default_weights(module: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's own initialisation, from a passed generator.

    Convolution: weight and bias uniform within ``1 / sqrt(inputs of one output)``. Group norm: 1 and 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            bound = part.weight[0].numel() ** -0.5
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound, generator=generator)
        elif isinstance(part, nn.GroupNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
