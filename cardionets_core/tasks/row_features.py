"""Features of the rows of a split, kept between rounds where their encoder is frozen.

Legend: R rows, B rows of a batch, D width of the feature.
"""

from __future__ import annotations

import numpy as np
import torch

from cardionets_core.data.cohort import Split
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.features import ecg_features


def mean_features(
    modules: Modules, site: SiteView, *, needs: frozenset[str], split: Split, frozen: bool
) -> torch.Tensor:
    """Mean ECG feature of the evaluation windows of ``site.rows(needs, split)``, in their order.

    A linear head on it gives the mean of the windows' logits.

    Args:
        modules: with ``ecg_encoder``; it is set to eval mode.
        site: the site.
        needs: what the rows hold, ``ecg`` among it.
        split: of the rows.
        frozen: the encoder does not change in this phase, so the features are made once and kept.

    Returns:
        float32 ``[R, D]`` on the CPU; ``[0, 0]`` without rows.
    """
    rows = site.rows(needs, split)

    def make() -> dict[str, torch.Tensor]:
        # What is kept serves training and evaluation, so it does not depend on the precision of the steps.
        with torch.autocast(site.device.type, enabled=False):
            return {"feature_RD": ecg_features(modules["ecg_encoder"], site, rows).float()}

    if not frozen or not len(rows):
        return make()["feature_RD"]
    settings = f"{split} rows with {' and '.join(sorted(needs))}, windows of {site.shape.ecg_samples}"
    found = site.kept.of("ecg-features", modules, ("ecg_encoder",), make, settings=settings)
    return found["feature_RD"]


class RowTable:
    """Values by row of the cohort, for a loss that is handed row numbers.

    Args:
        values_RD: one line for each of ``rows``.
        rows: int64 [R], rows of the cohort.
        total: rows of the whole cohort.
    """

    def __init__(self, values_RD: torch.Tensor, rows: np.ndarray, *, total: int) -> None:
        self._values_RD = values_RD
        self._place = torch.full((total,), -1, dtype=torch.int64)
        self._place[torch.from_numpy(rows)] = torch.arange(len(rows))

    def take(self, row_B: torch.Tensor) -> torch.Tensor:
        """The values of some rows, ``[B, D]``, on the device of ``row_B``.

        Raises:
            IndexError: a row has no value here.
        """
        place_B = self._place[row_B.cpu()]
        if (place_B < 0).any():
            raise IndexError("a row of the batch has no feature in this table")
        return self._values_RD[place_B].to(row_B.device)
