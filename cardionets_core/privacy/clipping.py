"""Bounds what one patient adds to a sum of gradients, however many records the patient has (SCIENCE 6).

Comes in: the gradient of each record. Goes out: the sum over patients, each clipped once. Clipping each
record instead would let a patient of five records add five times the bound.

Legend: B records, P patients; ``...`` the axes of a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


def clip_by_patient(
    gradients: Mapping[str, torch.Tensor], patient_B: torch.Tensor, *, bound: float
) -> dict[str, torch.Tensor]:
    """Sum a patient's records, scale the sum to a norm of at most ``bound``, and sum over patients.

    The norm is that of all parameters together, in float64.

    Args:
        gradients: of each parameter, ``[B, ...]``, one gradient a record.
        patient_B: int64, whose record it is; any numbers.
        bound: the largest norm of a patient's part, above 0.

    Returns:
        Of each parameter, ``[...]``; zero where there is no record.

    Raises:
        ValueError: the bound is not positive, or a parameter has not one gradient for each record.
    """
    if not bound > 0.0:
        raise ValueError(f"a bound of {bound} clips everything away; it lies above 0")
    if any(len(value) != len(patient_B) for value in gradients.values()):
        raise ValueError(f"every parameter needs one gradient for each of {len(patient_B)} records")
    patients, place_B = patient_B.unique(return_inverse=True)
    by_patient = {
        name: value.new_zeros((len(patients), *value.shape[1:])).index_add(0, place_B, value)
        for name, value in gradients.items()
    }
    square_P = sum(
        (value.double().flatten(1).square().sum(dim=1) for value in by_patient.values()),
        torch.zeros(len(patients), dtype=torch.float64, device=patient_B.device),
    )
    # The smallest positive number keeps 0 / 0 away; a patient without a gradient is scaled by 1.
    scale_P = (bound / square_P.sqrt().clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1.0)
    return {
        name: torch.einsum("p,p...->...", scale_P.to(value.dtype), value)
        for name, value in by_patient.items()
    }
