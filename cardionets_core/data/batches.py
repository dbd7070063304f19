"""A batch: the tensors of some rows, on the CPU (step 5 of the walk). A batch of no rows is legal."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tensors of B rows; a key that was not asked for is None.

    Legend: B rows, L leads, T samples, F frames, Y rows and X columns of pixels, K phenotypes.

    Attributes:
        patient_B: int64, a number for each person of the cohort.
        ecg_BLT: float32, standardised windows.
        cine_BFYX: float32 in [-1, 1].
        phenotypes_BK: float32, NaN where missing, in the order of ``PHENOTYPES``.
    """

    patient_B: torch.Tensor
    ecg_BLT: torch.Tensor | None = None
    cine_BFYX: torch.Tensor | None = None
    phenotypes_BK: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self.patient_B.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""

        def move(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return Batch(
            patient_B=self.patient_B.to(device),
            ecg_BLT=move(self.ecg_BLT),
            cine_BFYX=move(self.cine_BFYX),
            phenotypes_BK=move(self.phenotypes_BK),
        )
