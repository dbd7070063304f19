"""Tokens of a cine drawn from each row's ECG, made once by frozen modules and kept (float16).

A drawn cine adds no information beyond its ECG. Drawing is the slowest thing that the platform does, so it is
done once for each row and set of modules.

Legend: R rows of a split, M cine tokens, D width.
"""

from __future__ import annotations

from typing import cast

import torch

from cardionets_core.data.cohort import Split
from cardionets_core.models.cmr_encoder import CmrEncoder
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.cases import kept_conditions, row_seeds
from cardionets_core.tasks.drawing import DRAWING_BATCH, DrawingSettings, draw_cines, preset_of
from cardionets_core.tasks.ecg_tokens import kept_tokens, rows_text
from cardionets_core.tasks.generators import generator_kind

# Fixed: the cine of a row is the same in training and in every measurement.
DRAWING_SEED = 0


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

    kind = generator_kind(preset_of(site.shape).parts)
    names = (*kind.conditioned_by, *kind.drawers, "cmr_encoder")
    text = f"{rows_text(needs, split)}, seed {DRAWING_SEED}, {settings}"
    return kept_tokens(modules, site, "drawn-tokens", names, make, settings=text)
