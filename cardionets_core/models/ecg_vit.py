"""The ECG encoder of the earlier generation: a vision transformer that takes an ECG as an image.

Comes in: windows at 500 Hz, each lead within [-1, 1]. Goes out: a feature of each window, or tokens of the
visible patches. The published window is 12 x 5000 samples in patches of 1 x 100.

Legend: B rows, L leads, T samples, P patches of a lead, N patches of all leads together, lead by lead,
V visible ones of them, S samples of a patch, C covariates, D width.
"""

from __future__ import annotations

import torch
from torch import nn

from cardionets_core.models.masking import gather_patches
from cardionets_core.models.patches import patchify_ecg
from cardionets_core.models.per_row import PerRow
from cardionets_core.models.positions import sincos_grid, with_zero_rows
from cardionets_core.models.transformer import initialise, make_blocks

EPSILON = 1e-6


class Film(nn.Module):
    """Scales and shifts a row's tokens by its covariates (arXiv 1709.07871); the identity at the start.

    Tokens become ``(1 + gamma) * tokens + beta``, each of gamma and beta a linear map of the covariates. The
    published form has ``ReLU(gamma)`` for the factor: where gamma is not positive it makes a unit zero, with
    a gradient of zero that never wakes it, and at gamma = 0 it would begin by erasing the encoder.

    Args:
        covariates: C.
        width: D.
    """

    def __init__(self, covariates: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(covariates, width)
        self.beta = nn.Linear(covariates, width)
        self.become_identity()

    def become_identity(self) -> None:
        """Set all weights to zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens_BND: torch.Tensor, covariates_BC: torch.Tensor) -> torch.Tensor:
        """``[B, N, D]``."""
        gamma_BD, beta_BD = self.gamma(covariates_BC), self.beta(covariates_BC)
        return tokens_BND * (1.0 + gamma_BD[:, None]) + beta_BD[:, None]


class EcgVit(nn.Module):
    """Every lead is a row of patches; CLS stands in front, and all tokens attend to each other.

    A patch is embedded by a linear map, which is a convolution of (1, S) with stride (1, S). Where
    ``position`` is trained it is learned from a sine-cosine table over (lead, time).

    Args:
        leads: L.
        patch: samples of a patch.
        patches: P of the full window; shorter windows are legal.
        width: D.
        depth: number of blocks.
        heads: heads of each block.
        covariates: C that scale and shift the tokens of the last block; 0 for an encoder without.
    """

    def __init__(
        self, *, leads: int, patch: int, patches: int, width: int, depth: int, heads: int, covariates: int = 0
    ) -> None:
        super().__init__()
        self.leads = leads
        self.patch = patch
        self.patches = patches
        self.embed = nn.Linear(patch, width)
        self.cls = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(with_zero_rows(sincos_grid(leads, patches, width), before=1, after=0))
        self.per_row = PerRow()
        self.blocks = make_blocks(width, depth=depth, heads=heads, epsilon=EPSILON)
        self.film = Film(covariates, width) if covariates else None
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, ecg_BLT: torch.Tensor, covariates_BC: torch.Tensor | None = None) -> torch.Tensor:
        """Feature of each window: the normalised CLS of the last block, ``[B, D]``.

        Args:
            ecg_BLT: windows.
            covariates_BC: finite; an encoder that takes them sees zeros without them: they are unknown.

        Raises:
            ValueError: the encoder takes no covariates, or no such window.
        """
        return self.feature_and_tokens(ecg_BLT, covariates_BC)[0]

    def feature_and_tokens(
        self, ecg_BLT: torch.Tensor, covariates_BC: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``forward`` and ``tokens`` give, in one pass."""
        all_BND = self._all_tokens(ecg_BLT, covariates_BC)
        return self.norm(all_BND[:, 0]), all_BND[:, 1:].unflatten(1, (self.leads, -1))

    def tokens(self, ecg_BLT: torch.Tensor, covariates_BC: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens of all patches after the last block, without CLS, not normalised: ``[B, L, P, D]``."""
        return self.feature_and_tokens(ecg_BLT, covariates_BC)[1]

    def patches_of(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        """Patches as masks count them, ``[B, N, S]``: one mask lies over all leads together."""
        return patchify_ecg(ecg_BLT, self.patch).flatten(1, 2)

    def visible_tokens(self, ecg_BLT: torch.Tensor, visible_BV: torch.Tensor) -> torch.Tensor:
        """CLS and the visible patches, normalised, ``[B, 1 + V, D]``; the rest is never read.

        Args:
            ecg_BLT: windows.
            visible_BV: int64, indices of the visible patches as ``patches_of`` counts them.
        """
        cls_BD, places_BND = self._places(ecg_BLT)
        patches_BVS = gather_patches(self.patches_of(ecg_BLT), visible_BV)
        embedded_BVD = self.embed(patches_BVS) + gather_patches(places_BND, visible_BV)
        return self.norm(self.blocks(torch.cat([cls_BD[:, None], embedded_BVD], dim=1)))

    def draw_weights(self, generator: torch.Generator) -> None:
        """As every transformer, but the maps of the covariates begin at zero."""
        initialise(self, generator)
        if self.film is not None:
            self.film.become_identity()

    def _all_tokens(self, ecg_BLT: torch.Tensor, covariates_BC: torch.Tensor | None) -> torch.Tensor:
        """CLS and all patches, before the final norm: ``[B, 1 + N, D]``."""
        if covariates_BC is not None and self.film is None:
            raise ValueError("covariates for an encoder that was built without")
        cls_BD, places_BND = self._places(ecg_BLT)
        embedded_BND = self.embed(self.patches_of(ecg_BLT)) + places_BND
        tokens = self.blocks(torch.cat([cls_BD[:, None], embedded_BND], dim=1))
        if self.film is None:
            return tokens
        if covariates_BC is None:
            # The size, and not len(), which an exported graph would keep as a number.
            covariates_BC = tokens.new_zeros(tokens.shape[0], self.film.gamma.in_features)
        return self.film(tokens, covariates_BC)

    def _places(self, ecg_BLT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """CLS at its place, ``[B, D]``, and the places of the window's patches, ``[B, N, D]``."""
        batch, leads, samples = ecg_BLT.shape
        count = samples // self.patch
        if leads != self.leads or not 0 < count <= self.patches:
            raise ValueError(
                f"{leads} leads of {count} patches; the encoder takes {self.leads} of 1 to {self.patches}"
            )
        position = self.per_row(self.position, batch)
        # A shorter window takes the first columns of the image.
        places_BLPD = position[:, 1:].unflatten(1, (leads, self.patches))[:, :, :count]
        return self.per_row(self.cls, batch) + position[:, 0], places_BLPD.flatten(1, 2)
