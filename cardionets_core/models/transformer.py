"""The pre-norm transformer block of every model here, and their common initialisation (SCIENCE section 2).

Made of ``nn.Linear`` and ``scaled_dot_product_attention`` only, so that per-sample gradients can be taken.

Legend: N tokens, D width, H heads; ``...`` any leading axes, the first of them the batch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

MLP_RATIO = 4


class Attention(nn.Module):
    """Multi-head self-attention over the last but one axis.

    Args:
        width: D.
        heads: H; D is a multiple of H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[..., N, D]`` to ``[..., N, D]``."""
        *leading, count, width = tokens.shape
        # The leading axes are flattened around the attention only: the linear maps keep the batch in front.
        qkv = self.qkv(tokens).reshape(-1, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(*leading, count, width))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``; exact GELU.

    Args:
        width: D.
        heads: H.
        epsilon: of the layer norms.
    """

    def __init__(self, width: int, heads: int, *, epsilon: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=epsilon)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, eps=epsilon)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[..., N, D]`` to ``[..., N, D]``."""
        tokens = tokens + self.attention(self.norm_attention(tokens))
        return tokens + self.mlp(self.norm_mlp(tokens))


def make_blocks(width: int, *, depth: int, heads: int, epsilon: float) -> nn.Sequential:
    """``depth`` blocks, one after the other."""
    return nn.Sequential(*(Block(width, heads, epsilon=epsilon) for _ in range(depth)))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights in place, in the order of the modules.

    Linear and patch convolution: Xavier-uniform on the flattened kernel, bias 0. Layer norm: 1 and 0. Bare
    parameters (tokens, lead vectors): N(0, .02), except ``position``, which its owner has set.

    Args:
        module: on the CPU.
        generator: a CPU generator.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.data.flatten(1), generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        else:
            for name, parameter in part.named_parameters(recurse=False):
                if name != "position":
                    nn.init.normal_(parameter, std=0.02, generator=generator)
