"""A batch: the tensors of some rows, on the CPU (step 5 of the walk). A batch of no rows is legal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tensors of B rows; a key that was not asked for is None.

    Legend: B rows, L leads, T samples, F frames, Y rows and X columns of pixels, K phenotypes, D labels,
    C covariates.

    Attributes:
        patient_B: int64, a number for each person of the cohort.
        row_B: int64, the row of the cohort that each stands for: where values kept by row are looked up.
        ecg_BLT: float32, standardised windows.
        covariates_BC: float32, of ``COVARIATES``, beside ECGs where the shape asks for them.
        cine_BFYX: float32 in [-1, 1], of the view that the shape names.
        sax_BFYX: float32 in [-1, 1], the short axis; 0 throughout for a row that has none.
        phenotypes_BK: float32, NaN where missing, in the order of ``PHENOTYPES``.
        labels_BD: float32 1, 0 or NaN where not known, in the order of ``LABELS``.
        cine_known_B: bool, which rows have a 4-chamber cine; None unless ``cmr`` was asked for, and then
            ``cine_BFYX`` is 0 throughout for the others.
        sax_known_B: bool, which rows have a short-axis cine; None unless ``cmr`` was asked for.
    """

    patient_B: torch.Tensor
    row_B: torch.Tensor
    ecg_BLT: torch.Tensor | None = None
    covariates_BC: torch.Tensor | None = None
    cine_BFYX: torch.Tensor | None = None
    sax_BFYX: torch.Tensor | None = None
    phenotypes_BK: torch.Tensor | None = None
    labels_BD: torch.Tensor | None = None
    cine_known_B: torch.Tensor | None = None
    sax_known_B: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.patient_B.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return self._each(lambda tensor: tensor.pin_memory())

    def parts(self, count: int) -> Iterator[Batch]:
        """The batch in up to ``count`` runs of rows of nearly equal length, none of them empty."""
        edges = [self.size * place // count for place in range(count + 1)]
        for begin, end in pairwise(edges):
            if end > begin:
                yield self.run(begin, end)

    def run(self, begin: int, end: int) -> Batch:
        """The rows from one to before another."""
        return self if end - begin == self.size else self._each(partial(_run, begin=begin, end=end))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: change(value) for name, value in tensors.items() if value is not None})


def _run(tensor: torch.Tensor, *, begin: int, end: int) -> torch.Tensor:
    return tensor[begin:end]
