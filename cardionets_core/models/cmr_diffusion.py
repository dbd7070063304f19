"""The earlier generation's CMR generator: a transformer denoises a whole latent (arXiv 2212.09748).

Comes in: a noisy latent, the time of each row, the tokens of its ECG, the first of which sums it up. Goes
out: the noise in it.

Time and the first token scale and shift what self-attention and MLP take and gate what they give; all tokens
are read by cross-attention. All gates and outputs begin at zero, so that a block begins as the identity and
the model predicts no noise. The residual stream is float32 under autocast too. Nothing is dropped in training
but whole conditions, by the caller's word: the same inputs give the same outputs.

Legend: B rows, Z channels, T frames, H rows and W columns of a latent; L tokens of a latent, K values of a
token, N tokens of an ECG, C their width, D own width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from cardionets_core.models.diffusion_head import TIME_WIDTH, time_features
from cardionets_core.models.patches import patchify_latent, unpatchify_latent
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.transformer import MLP_RATIO, Attention, initialise

EPSILON = 1e-6


class CrossAttention(nn.Module):
    """Multi-head attention of one set of tokens onto another.

    Args:
        width: D, of both.
        heads: D is a multiple of it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens_BLD: torch.Tensor, read_BND: torch.Tensor) -> torch.Tensor:
        """``[B, L, D]``; ``read_BND`` is from ``read``, ``[B, N, 2 D]``."""
        query = self.query(tokens_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = read_BND.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key.to(query.dtype), value.to(query.dtype))
        return self.out(mixed.transpose(1, 2).flatten(2))

    def read(self, other_BND: torch.Tensor) -> torch.Tensor:
        """Keys and values of the tokens that are attended to, ``[B, N, 2 D]``."""
        return self.key_value(other_BND)


class CmrDiffusionBlock(nn.Module):
    """Self-attention, cross-attention onto the ECG, MLP; time and ECG modulate the first and the last.

    Args:
        width: D.
        heads: of both attentions.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm_cross = nn.LayerNorm(width, eps=EPSILON)
        self.cross = CrossAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(
        self, stream_BLD: torch.Tensor, state_B1D: torch.Tensor, read_BND: torch.Tensor
    ) -> torch.Tensor:
        """``[B, L, D]``, float32.

        Args:
            stream_BLD: float32.
            state_B1D: time and first ECG token.
            read_BND: what this block's cross-attention read of the ECG.
        """
        modulation = self.modulation(state_B1D).float()
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, dim=-1)
        normed = self.norm_attention(stream_BLD) * (1.0 + scale) + shift
        stream_BLD = stream_BLD + gate * self.attention(normed).float()
        stream_BLD = stream_BLD + self.cross(self.norm_cross(stream_BLD), read_BND).float()
        normed = self.norm_mlp(stream_BLD) * (1.0 + mlp_scale) + mlp_shift
        return stream_BLD + mlp_gate * self.mlp(normed).float()


class CmrDiffusion(nn.Module):
    """Predicts the noise of a noisy latent from its time and the tokens of an ECG.

    Args:
        latent: Z, T, H, W.
        patch: latent values of a token along T, H and W.
        condition: C.
        width: D.
        depth: blocks.
        heads: of each attention.

    Raises:
        ValueError: the latent is not a multiple of the patch.
    """

    takes_tokens = True

    def __init__(
        self,
        *,
        latent: tuple[int, int, int, int],
        patch: tuple[int, int, int],
        condition: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        channels, frames, rows, columns = latent
        if frames % patch[0] or rows % patch[1] or columns % patch[2]:
            raise ValueError(f"a latent of {latent[1:]} is not a multiple of the patch of {patch}")
        self.latent = latent
        self.patch = patch
        self.grid = (frames // patch[0], rows // patch[1], columns // patch[2])
        token_width = channels * math.prod(patch)
        self.embed = nn.Linear(token_width, width)
        self.table = nn.Parameter(torch.zeros(math.prod(self.grid), width))
        self.null_condition = nn.Parameter(torch.zeros(condition))
        self.per_row = PerRow()
        self.time_mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.condition_norm = nn.LayerNorm(condition, eps=EPSILON)
        self.condition_layer = nn.Linear(condition, width)
        self.blocks = nn.ModuleList(CmrDiffusionBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.out = nn.Linear(width, token_width)

    def forward(
        self,
        noisy_BZTHW: torch.Tensor,
        time_B: torch.Tensor,
        condition_BND: torch.Tensor,
        dropped_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The noise, float32 ``[B, Z, T, H, W]``.

        Args:
            noisy_BZTHW: noisy latents.
            time_B: int64, the training process's time of each row.
            condition_BND: tokens of the rows' ECGs, ``[B, N, C]``, not normalised; first the feature.
            dropped_B: bool, rows that see the null condition in place of every token. None drops none.
        """
        return self.predict(noisy_BZTHW, time_B, reads=self.read(condition_BND, dropped_B))

    def null_tokens(self, condition_BND: torch.Tensor) -> torch.Tensor:
        """The null condition in place of every token, as ``condition_BND``: ``[B, N, C]``."""
        null_BC = self.per_row(self.null_condition, condition_BND.shape[0])
        return null_BC[:, None].expand_as(condition_BND).to(condition_BND.dtype)

    def read(self, condition_BND: torch.Tensor, dropped_B: torch.Tensor | None = None) -> list[torch.Tensor]:
        """What is read of the ECG, which a sampler computes once for all times.

        Returns:
            The first token, ``[B, 1, D]``; keys and values of all for each block, ``[B, N, 2 D]``.
        """
        if dropped_B is not None:
            null_BND = self.null_tokens(condition_BND)
            condition_BND = torch.where(dropped_B[:, None, None], null_BND, condition_BND)
        read_BND = self.condition_layer(self.condition_norm(condition_BND))
        found = [read_BND[:, :1]]
        for block in self.blocks:
            assert isinstance(block, CmrDiffusionBlock)
            found.append(block.cross.read(read_BND))
        return found

    def predict(
        self, noisy_BZTHW: torch.Tensor, time_B: torch.Tensor, *, reads: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """``forward`` with what ``read`` gave."""
        tokens_BLK = patchify_latent(noisy_BZTHW, self.patch)
        table_BLD = self.per_row(self.table, tokens_BLK.shape[0])
        stream_BLD = self.embed(tokens_BLK).float() + table_BLD
        first_B1D, *others = reads
        state_B1D = self.time_mlp(time_features(time_B)).float()[:, None] + first_B1D.float()
        for block, read_BND in zip(self.blocks, others, strict=True):
            stream_BLD = block(stream_BLD, state_B1D, read_BND)
        shift, scale = self.modulation(state_B1D).float().chunk(2, dim=-1)
        noise_BLK = self.out(self.norm(stream_BLD) * (1.0 + scale) + shift).float()
        return unpatchify_latent(noise_BLK, patch=self.patch, grid=self.grid)

    def draw_weights(self, generator: torch.Generator) -> None:
        """As every transformer, but the time MLP N(0, .02), the null condition N(0, 1), and zeros.

        Zero are the modulations, the cross-attentions' output layers and the model's. The null condition has
        the size of a normalised token: the norm behind it would make a smaller one's gradient larger.
        """
        initialise(self, generator)
        for layer in self.time_mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02, generator=generator)
        nn.init.normal_(self.null_condition, generator=generator)
        for name, parameter in self.named_parameters():
            if "modulation" in name or "cross.out" in name or name.startswith("out."):
                nn.init.zeros_(parameter)
