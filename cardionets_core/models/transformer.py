"""The pre-norm transformer block of every model here, and their common initialisation (SCIENCE section 2).

Made of ``nn.Linear`` and ``scaled_dot_product_attention`` only, so that per-sample gradients can be taken.

Legend: B rows, N tokens, W wanted tokens, D width, H heads; ``...`` any leading axes, the batch first.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention

from cardionets_core.models.masking import gather_patches

MLP_RATIO = 4


class Attention(nn.Module):
    """Multi-head self-attention over the last but one axis.

    Args:
        width: D.
        heads: H; D is a multiple of H.
        dropout: share of attention weights that are dropped in training.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[..., N, D]`` to ``[..., N, D]``."""
        *leading, count, width = tokens.shape
        # The leading axes are flattened around the attention only: the linear maps keep the batch in front.
        qkv = self.qkv(tokens).reshape(-1, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        share = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=share)
        return self.out(mixed.transpose(1, 2).reshape(*leading, count, width))

    def of(self, wanted_BWD: torch.Tensor, tokens_BND: torch.Tensor) -> torch.Tensor:
        """What ``forward`` gives for some of the tokens alone, which attend to all: ``[B, W, D]``.

        For inference: nothing is dropped.
        """
        batch, _, width = tokens_BND.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        query = linear(wanted_BWD, weight[:width], bias[:width])
        both = linear(tokens_BND, weight[width:], bias[width:])
        query = query.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)
        key, value = (
            both.reshape(batch, -1, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        mixed = scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``; exact GELU.

    Args:
        width: D.
        heads: H.
        epsilon: of the layer norms.
        dropout: share of attention weights, and of values of both branches' outputs, dropped in training.
        drop_path: share of rows whose branch is left out in training (arXiv 1603.09382).
    """

    def __init__(
        self, width: int, heads: int, *, epsilon: float, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.drop_path = drop_path
        self.norm_attention = nn.LayerNorm(width, eps=epsilon)
        self.attention = Attention(width, heads, dropout=dropout)
        self.norm_mlp = nn.LayerNorm(width, eps=epsilon)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[..., N, D]`` to ``[..., N, D]``."""
        tokens = tokens + self._thinned(self.attention(self.norm_attention(tokens)))
        return tokens + self._thinned(self.mlp(self.norm_mlp(tokens)))

    def of(self, tokens_BND: torch.Tensor, index_BW: torch.Tensor) -> torch.Tensor:
        """What ``forward`` gives at some indices, in inference, and nothing else: ``[B, W, D]``."""
        normed = self.norm_attention(tokens_BND)
        wanted = gather_patches(tokens_BND, index_BW)
        wanted = wanted + self.attention.of(gather_patches(normed, index_BW), normed)
        return wanted + self.mlp(self.norm_mlp(wanted))

    def _thinned(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return branch
        if self.dropout:
            branch = dropout(branch, self.dropout)
        if self.drop_path:
            rows = branch.new_ones(branch.shape[0], *(1,) * (branch.dim() - 1))
            branch = branch * dropout(rows, self.drop_path)
        return branch


def make_blocks(
    width: int, *, depth: int, heads: int, epsilon: float, dropout: float = 0.0, drop_path: float = 0.0
) -> nn.Sequential:
    """``depth`` blocks, one after the other; ``drop_path`` grows evenly from 0 to its value at the last."""
    shares = [drop_path * place / max(depth - 1, 1) for place in range(depth)]
    return nn.Sequential(
        *(Block(width, heads, epsilon=epsilon, dropout=dropout, drop_path=share) for share in shares)
    )


@runtime_checkable
class DrawsOwnWeights(Protocol):
    """A module whose weights do not begin as ``initialise`` would have them."""

    def draw_weights(self, generator: torch.Generator) -> None:
        """Set all weights in place; the module is on the CPU."""


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
            if part.elementwise_affine:
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
        else:
            for name, parameter in part.named_parameters(recurse=False):
                if name != "position":
                    nn.init.normal_(parameter, std=0.02, generator=generator)
