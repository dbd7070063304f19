"""Features of a site's cines from the frozen tower, made once and kept: the bank of negatives (SCIENCE 5.2b).

The tower does not change during a phase, so the bank is exact for the whole phase; only what is trained is
applied anew at each step.

Legend: N entries, one a cine; R rows of the cohort, B of a batch; K entries that are drawn; D width of the
feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cardionets_core.data.cohort import Split
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.features import cmr_features


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Frozen features of the cines of some rows, each cine once, on the site's device.

    Attributes:
        feature_ND: float16.
        patient_N: int64, the patient of each entry.
        entry_R: int64, the entry of each row of the cohort; -1 for a row that has none.
    """

    feature_ND: torch.Tensor
    patient_N: torch.Tensor
    entry_R: torch.Tensor

    def of_rows(self, row_B: torch.Tensor) -> torch.Tensor:
        """Features of the rows' own cines, float32 [B, D]."""
        return self.feature_ND[self.entry_R[row_B]].float()


def cine_bank(modules: Modules, site: SiteView, rows: np.ndarray, *, split: Split) -> Bank:
    """The bank of some rows of a split, in the order in which their cines appear.

    Args:
        modules: holds ``cmr_encoder``, frozen.
        site: keeps the features of all cines of the split.
        rows: int64, at least one; each with a cine.
        split: of all rows.
    """

    def make() -> dict[str, torch.Tensor]:
        every = site.rows(frozenset({"cine"}), split)
        # What is kept must not depend on the precision that the site trains with.
        with torch.autocast(site.device.type, enabled=False):
            feature = cmr_features(modules["cmr_encoder"], site, every)
        return {
            "feature": feature.half(),
            "cine": torch.from_numpy(site.cohort.row_cine[every].astype(np.int64)),
        }

    shape = f"{site.shape.cine_frames}x{site.shape.cine_pixels}"
    kept = site.kept.of("cmr-features", modules, ("cmr_encoder",), make, settings=f"{split} {shape}")
    cohort = site.cohort
    cine_R = cohort.row_cine[rows]
    _, first = np.unique(cine_R, return_index=True)
    entries = rows[np.sort(first)]
    cine_N = cohort.row_cine[entries]
    entry_R = np.full(len(cohort.row_cine), -1, dtype=np.int64)
    entry_R[rows] = _places(cine_N, len(cohort.cines))[cine_R]
    chosen = torch.from_numpy(_places(kept["cine"].numpy(), len(cohort.cines))[cine_N])
    return Bank(
        feature_ND=kept["feature"][chosen].to(site.device),
        patient_N=torch.from_numpy(cohort.row_patient[entries].astype(np.int64)).to(site.device),
        entry_R=torch.from_numpy(entry_R).to(site.device),
    )


def draw_entries(
    bank: Bank, own_B: torch.Tensor, *, cap: int, generator: torch.Generator
) -> torch.Tensor | None:
    """Which entries of a capped bank a step sees: the batch's own, filled up at random.

    The batch is itself a random draw of rows, so each other entry stands for equally many.

    Args:
        bank: of N entries.
        own_B: entries of the batch's cines.
        cap: K; the batch's own are kept even where they are more.
        generator: on the CPU.

    Returns:
        int64 [K] on the bank's device, or None where the whole bank is seen (a cap of 0 is none).
    """
    count = len(bank.feature_ND)
    own = own_B.unique().cpu()
    if cap == 0 or max(cap, len(own)) >= count:
        return None
    order = torch.randperm(count, generator=generator)
    others = order[~torch.isin(order, own)]
    return torch.cat([own, others[: max(cap - len(own), 0)]]).to(bank.feature_ND.device)


def _places(items: np.ndarray, count: int) -> np.ndarray:
    """Where each of ``count`` items stands in ``items``, int64; -1 where it does not."""
    found = np.full(count, -1, dtype=np.int64)
    found[items] = np.arange(len(items))
    return found
