"""What a task sees of a site: its cohort, the sizes and the device of the phase, and what it may keep.

Between steps 5 and 6 of the walk. A task never sees a path, a document or the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort, Split
from cardionets_core.data.windows import InputShape
from cardionets_core.tasks.kept import Kept

EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """One site, as the tasks see it.

    Attributes:
        cohort: its data.
        shape: sizes of the preset.
        device: where it computes.
        kept: derived arrays that last beyond a round.
        shared: added statistics of this round, where the task asks for them.
        smallest_cell: fewest people in any group that a sum tells of.
        draws: a secret of the site, without which nobody knows whom its bootstrap has drawn.
    """

    cohort: Cohort
    shape: InputShape
    device: torch.device
    kept: Kept = field(default_factory=Kept)
    shared: Mapping[str, np.ndarray] = field(default_factory=dict)
    smallest_cell: int = 1
    draws: str = ""

    def rows(self, needs: frozenset[str], split: Split) -> np.ndarray:
        """Rows of a split that hold all that is needed; int64, ascending."""
        return self.cohort.rows(needs, split, self.shape)

    def batches(
        self, rows: np.ndarray, *, keys: frozenset[str], window: int, size: int = EVALUATION_BATCH
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Rows in their order with their tensors on the device, ``size`` at a time (evaluation).

        Args:
            rows: int64 [R].
            keys: what to load.
            window: index of the evaluation window.
            size: rows of a batch.
        """
        for begin in range(0, len(rows), size):
            some = rows[begin : begin + size]
            yield some, self.cohort.batch(some, keys=keys, shape=self.shape, window=window).to(self.device)
