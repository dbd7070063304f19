"""Tokens of each row's ECG, averaged over leads and evaluation windows (step 6 of the walk).

They are what a head or a generator sees of an ECG beyond its feature. Averaging over leads keeps the order in
time, and a case small: at the preset ``paper`` 46 kB in place of 550, or 102 kB in place of 1.2 MB.

Legend: B rows of a batch, R rows of a split, L leads, N ECG patches of a lead, one more with the feature, D
width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import nn

from cardionets_core.data.cohort import Split
from cardionets_core.models.ecg_encoder import EcgEncoder
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.features import ecg_features

ECG_BATCH = 1024


def row_tokens(
    modules: Modules, site: SiteView, rows: np.ndarray, *, with_feature: bool = False
) -> torch.Tensor:
    """Tokens of some rows, float32 ``[R, N, D]`` on the CPU; at least one row.

    Args:
        modules: with a frozen ``ecg_encoder``; it is set to eval mode.
        site: the site.
        rows: int64 [R], rows with an ECG.
        with_feature: the first token is the feature: all that the last phase to train an image transformer
            moved is its class token, which is no patch.
    """
    encoder = cast(EcgEncoder, modules["ecg_encoder"]).eval()
    flat = _FlatTokens(encoder, with_feature=with_feature)
    parts = [
        ecg_features(flat, site, rows[begin : begin + ECG_BATCH]).float()
        for begin in range(0, len(rows), ECG_BATCH)
    ]
    return torch.cat(parts).unflatten(1, (-1, encoder.norm.normalized_shape[0]))


def ecg_tokens(
    modules: Modules, site: SiteView, *, needs: frozenset[str], split: Split, with_feature: bool = False
) -> torch.Tensor:
    """Tokens of ``site.rows(needs, split)``, made once and kept: float16 ``[R, N, D]`` on the CPU; R > 0.

    Args:
        modules: with a frozen ``ecg_encoder``.
        site: the site.
        needs: what the rows hold.
        split: of the rows.
        with_feature: as for ``row_tokens``.
    """
    rows = site.rows(needs, split)

    def make() -> dict[str, torch.Tensor]:
        return {"token_RND": row_tokens(modules, site, rows, with_feature=with_feature).half()}

    kind = "ecg-feature-tokens" if with_feature else "ecg-tokens"
    return kept_tokens(modules, site, kind, ("ecg_encoder",), make, settings=rows_text(needs, split))


def kept_tokens(
    modules: Modules,
    site: SiteView,
    kind: str,
    names: tuple[str, ...],
    make: Callable[[], dict[str, torch.Tensor]],
    *,
    settings: str,
) -> torch.Tensor:
    """What ``make`` gives as ``token_RND``, made once in full precision and kept; see ``Kept.of``."""

    def made() -> dict[str, torch.Tensor]:
        # In full precision whatever the steps use, for they outlast a round.
        with torch.autocast(site.device.type, enabled=False):
            return make()

    return site.kept.of(kind, modules, names, made, settings=settings)["token_RND"]


def rows_text(needs: frozenset[str], split: Split) -> str:
    """What the rows are, for the settings of what is kept."""
    return f"{split} rows with {' and '.join(sorted(needs))}"


class _FlatTokens(nn.Module):
    """An encoder whose feature is all of a window's tokens, averaged over leads: ``[B, N * D]``."""

    def __init__(self, encoder: EcgEncoder, *, with_feature: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.with_feature = with_feature

    def forward(self, ecg_BLT: torch.Tensor, *covariates_BC: torch.Tensor) -> torch.Tensor:
        feature_BD, token_BLND = self.encoder.feature_and_tokens(ecg_BLT, *covariates_BC)
        token_BND = token_BLND.mean(dim=1)
        if self.with_feature:
            token_BND = torch.cat([feature_BD[:, None], token_BND], dim=1)
        return token_BND.flatten(1)
