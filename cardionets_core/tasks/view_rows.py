"""The two views of a batch, and what their towers make of them (step 6 of the walk).

Legend: B rows, F frames, Y rows and X columns of pixels, H hidden patches, E width of the common space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from cardionets_core.data.batches import Batch
from cardionets_core.models.swin import CmrSwin
from cardionets_core.tasks.base import Modules
from cardionets_core.tasks.masked_autoencoders import Reconstruction
from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS, short_axis_modules

VIEWS = (LONG_AXIS, SHORT_AXIS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRows:
    """One view of a batch.

    Attributes:
        modules: with the view's tower, decoder and projection under the names of the 4-chamber view.
        cine_BFYX: of all rows; zeros where a row lacks the view.
        known_B: bool, rows that have it.
    """

    modules: Modules
    cine_BFYX: torch.Tensor
    known_B: torch.Tensor


def view_rows(modules: Modules, batch: Batch) -> dict[str, ViewRows]:
    """The views that the batch holds, the 4-chamber view first."""
    all_B = torch.ones(batch.size, dtype=torch.bool, device=batch.patient_B.device)
    held = {
        LONG_AXIS: (modules, batch.cine_BFYX, batch.cine_known_B),
        SHORT_AXIS: (short_axis_modules(modules), batch.sax_BFYX, batch.sax_known_B),
    }
    return {
        name: ViewRows(modules=own, cine_BFYX=cine, known_B=all_B if known is None else known)
        for name, (own, cine, known) in held.items()
        if cine is not None
    }


def reconstruction(view: ViewRows, hidden_BH: torch.Tensor) -> Reconstruction:
    """What a view's tower and decoder make of cines of which patches are hidden."""
    tower = cast(CmrSwin, view.modules["cmr_encoder"])
    predicted = view.modules["cmr_decoder"](tower.tokens_hidden(view.cine_BFYX, hidden_BH))
    return Reconstruction(predicted=predicted, target=tower.patches_of(view.cine_BFYX), hidden=hidden_BH)


def projected(view: ViewRows) -> torch.Tensor:
    """Projections of all rows' whole cines, not normalised: [B, E]."""
    feature_BD = view.modules["cmr_encoder"](view.cine_BFYX)
    return cast(torch.Tensor, view.modules["cmr_projection"](feature_BD))
