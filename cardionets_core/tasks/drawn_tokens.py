"""Tokens of each row's ECG and of a cine drawn from it, made once by frozen modules and kept (float16).

A drawn cine adds no information beyond its ECG. Drawing is the slowest thing that the platform does, so it is
done once for each row and set of modules.

Legend: B rows of a batch, R rows of a split, L leads, N ECG patches of a lead, M cine tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from cardionets_core.data.cohort import Split
from cardionets_core.models.cmr_encoder import CmrEncoder
from cardionets_core.models.ecg_encoder import EcgEncoder
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.cases import kept_conditions, row_seeds
from cardionets_core.tasks.drawing import DRAWERS, DRAWING_BATCH, DrawingSettings, draw_cines
from cardionets_core.tasks.features import ecg_features

# Fixed: the cine of a row is the same in training and in every measurement.
DRAWING_SEED = 0
ECG_BATCH = 1024


def ecg_tokens(modules: Modules, site: SiteView, *, needs: frozenset[str], split: Split) -> torch.Tensor:
    """Tokens averaged over leads and evaluation windows, float16 ``[R, N, D]`` on the CPU; R > 0.

    Args:
        modules: with a frozen ``ecg_encoder``.
        site: the site.
        needs: what the rows hold.
        split: of the rows.
    """
    rows = site.rows(needs, split)
    encoder = cast(EcgEncoder, modules["ecg_encoder"])

    def make() -> dict[str, torch.Tensor]:
        encoder.eval()
        flat = _FlatTokens(encoder)
        parts = [
            ecg_features(flat, site, rows[begin : begin + ECG_BATCH]).half()
            for begin in range(0, len(rows), ECG_BATCH)
        ]
        return {"token_RND": torch.cat(parts).unflatten(1, (encoder.patches, -1))}

    return _kept(modules, site, "ecg-tokens", ("ecg_encoder",), make, settings=_rows_text(needs, split))


def drawn_tokens(
    modules: Modules, site: SiteView, *, needs: frozenset[str], split: Split, settings: DrawingSettings
) -> torch.Tensor:
    """Tokens of the cine drawn from each row's ECG, and CLS: float16 ``[R, M, D]`` on the CPU; R > 0."""
    rows = site.rows(needs, split)
    encoder = cast(CmrEncoder, modules["cmr_encoder"])

    def make() -> dict[str, torch.Tensor]:
        encoder.eval()
        condition_RP = kept_conditions(modules, site, needs=needs, split=split)
        seeds = row_seeds(DRAWING_SEED, rows, site=site.cohort.site)
        parts = []
        for begin in range(0, len(rows), DRAWING_BATCH):
            some = slice(begin, begin + DRAWING_BATCH)
            cine_BFYX = draw_cines(
                modules, condition_RP[some], settings=settings, seeds=seeds[some], device=site.device
            )
            with torch.no_grad():
                parts.append(encoder.tokens(cine_BFYX).half().cpu())
        return {"token_RND": torch.cat(parts)}

    names = ("ecg_encoder", "ecg_projection", *DRAWERS, "cmr_encoder")
    text = f"{_rows_text(needs, split)}, seed {DRAWING_SEED}, {settings}"
    return _kept(modules, site, "drawn-tokens", names, make, settings=text)


def _kept(
    modules: Modules,
    site: SiteView,
    kind: str,
    names: tuple[str, ...],
    make: Callable[[], dict[str, torch.Tensor]],
    *,
    settings: str,
) -> torch.Tensor:
    def made() -> dict[str, torch.Tensor]:
        # In full precision whatever the steps use, for they outlast a round.
        with torch.autocast(site.device.type, enabled=False):
            return make()

    return site.kept.of(kind, modules, names, made, settings=settings)["token_RND"]


def _rows_text(needs: frozenset[str], split: Split) -> str:
    return f"{split} rows with {' and '.join(sorted(needs))}"


class _FlatTokens(nn.Module):
    """An encoder whose feature is all of a window's tokens, averaged over leads: ``[B, N * D]``."""

    def __init__(self, encoder: EcgEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ecg_BLT: torch.Tensor) -> torch.Tensor:
        return self.encoder.tokens(ecg_BLT).mean(dim=1).flatten(1)
