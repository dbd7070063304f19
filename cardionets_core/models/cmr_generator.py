"""The CMR generator G: a masked autoregressive transformer over latent tokens (SCIENCE 2; arXiv 2406.11838).

Comes in: tokens of a normalised latent, indices of the visible ones, an ECG embedding. Goes out: for each
token a vector z that the diffusion head turns into values.

Every row shows the same number of tokens, named by index, so that no shape depends on a value.

Legend: B rows, L tokens of a latent, K values of a token, V visible tokens, U buffer tokens, W wanted tokens,
P width of the ECG embedding, D width.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.masking import gather_patches, scatter_tokens
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.transformer import Block, make_blocks

EPSILON = 1e-6
DROPOUT = 0.1
CONDITION_DROP = 0.1


class CmrGenerator(nn.Module):
    """The encoder sees the condition and the visible tokens; the decoder fills in the others.

    Args:
        tokens: L.
        token_width: K.
        condition: P.
        width: D.
        depth: blocks of the encoder, and of the decoder.
        heads: heads of each block.
        buffer: U, tokens that carry the condition.
        dropout: of attention weights and of the branches' outputs, in training.
    """

    def __init__(
        self,
        *,
        tokens: int,
        token_width: int,
        condition: int,
        width: int,
        depth: int,
        heads: int,
        buffer: int,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.token_width = token_width
        self.buffer = buffer
        self.condition_path = nn.Sequential(nn.Linear(condition, width), nn.Linear(width, width))
        self.null_condition = nn.Parameter(torch.zeros(width))
        self.embed = nn.Linear(token_width, width)
        self.encoder_table = nn.Parameter(torch.zeros(buffer + tokens, width))
        self.embed_norm = nn.LayerNorm(width, eps=EPSILON)
        self.encoder = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON, dropout=dropout)
        self.encoder_norm = nn.LayerNorm(width, eps=EPSILON)
        self.bridge = nn.Linear(width, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.decoder_table = nn.Parameter(torch.zeros(buffer + tokens, width))
        self.decoder = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON, dropout=dropout)
        self.decoder_norm = nn.LayerNorm(width, eps=EPSILON)
        self.diffusion_table = nn.Parameter(torch.zeros(tokens, width))
        self.per_row = PerRow()

    def forward(
        self,
        tokens_BLK: torch.Tensor,
        visible_BV: torch.Tensor,
        condition_BP: torch.Tensor,
        dropped_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """z of every token; hidden tokens are never read.

        Args:
            tokens_BLK: tokens of normalised latents, from ``patchify_latent``.
            visible_BV: int64, indices of the visible tokens; V may be 0.
            condition_BP: ECG embeddings, not normalised.
            dropped_B: bool, rows whose condition is replaced by the null vector. None drops none.

        Returns:
            ``[B, L, D]``.
        """
        condition_BD = self.condition(condition_BP, dropped_B)
        encoded = self.encode(gather_patches(tokens_BLK, visible_BV), visible_BV, condition_BD=condition_BD)
        decoded = self.decoder(self.fill(encoded, visible_BV))
        return self.decoder_norm(decoded)[:, self.buffer :] + self._table(self.diffusion_table, decoded)

    def condition(self, condition_BP: torch.Tensor, dropped_B: torch.Tensor | None = None) -> torch.Tensor:
        """What fills the buffer, ``[B, D]``: the mapped embedding, or the null vector where dropped."""
        mapped = self.condition_path(condition_BP)
        if dropped_B is None:
            return mapped
        return torch.where(
            dropped_B[:, None], self._table(self.null_condition, mapped).to(mapped.dtype), mapped
        )

    def encode(
        self, visible_BVK: torch.Tensor, visible_BV: torch.Tensor, *, condition_BD: torch.Tensor
    ) -> torch.Tensor:
        """Buffer and visible tokens after the encoder: ``[B, U + V, D]``."""
        batch, width = condition_BD.shape
        table_BSD = self._table(self.encoder_table, condition_BD)
        embedded = self.embed(visible_BVK) + gather_patches(table_BSD[:, self.buffer :], visible_BV)
        front = condition_BD[:, None].expand(batch, self.buffer, width) + table_BSD[:, : self.buffer]
        together = self.embed_norm(torch.cat([front, embedded], dim=1))
        return self.encoder_norm(self.encoder(together))

    def fill(self, encoded_BED: torch.Tensor, visible_BV: torch.Tensor) -> torch.Tensor:
        """What the decoder takes: buffer and all tokens, hidden ones a learned vector: ``[B, U + L, D]``."""
        bridged = self.bridge(encoded_BED)
        blank = self._table(self.hidden, bridged)[:, None]
        full = scatter_tokens(bridged[:, self.buffer :], visible_BV, blank=blank, patches=self.tokens)
        table_BSD = self._table(self.decoder_table, bridged)
        return torch.cat([bridged[:, : self.buffer], full], dim=1) + table_BSD

    def decode_some(self, filled_BSD: torch.Tensor, wanted_BW: torch.Tensor) -> torch.Tensor:
        """z of the wanted tokens alone, in inference: the last block computes nothing else. ``[B, W, D]``."""
        *first, last = self.decoder
        assert isinstance(last, Block)
        for block in first:
            filled_BSD = block(filled_BSD)
        decoded = last.of(filled_BSD, self.buffer + wanted_BW)
        return self.decoder_norm(decoded) + self.diffusion_table[wanted_BW]

    def _table(self, parameter: torch.Tensor, like_B: torch.Tensor) -> torch.Tensor:
        return self.per_row(parameter, len(like_B))
