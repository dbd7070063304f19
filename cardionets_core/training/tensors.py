"""Modules as named arrays, and back: the only form in which a module crosses the wire or reaches a disk."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from cardionets_core.errors import OrderRefusedError


def export_tensors(module: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all parameters, trained or not: float32, C-contiguous, in the module's order."""
    return {
        name: np.array(parameter.detach().cpu().numpy(), dtype=np.float32, order="C")
        for name, parameter in module.named_parameters()
    }


def load_tensors(module: nn.Module, tensors: Mapping[str, np.ndarray], *, where: str = "order") -> None:
    """Set all parameters of a module, or none of them.

    Args:
        module: changed in place.
        tensors: exactly the module's parameter names, each float32, of the parameter's shape, finite.
        where: named in the refusal.

    Raises:
        OrderRefusedError: names, shapes, dtype or values are wrong; every fault is listed.
    """
    parameters = dict(module.named_parameters())
    faults = [f"{name} is absent" for name in parameters if name not in tensors]
    faults += [f"{name} is unknown" for name in tensors if name not in parameters]
    for name, parameter in parameters.items():
        if name not in tensors:
            continue
        value = tensors[name]
        if value.dtype != np.float32:
            faults.append(f"{name} is {value.dtype}, not float32")
        elif tuple(value.shape) != tuple(parameter.shape):
            faults.append(f"{name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
        elif not np.isfinite(value).all():
            faults.append(f"{name} is not finite")
    if faults:
        raise OrderRefusedError(
            f"tensors do not fit the module: {'; '.join(faults)}",
            where=where,
            remedy="use the same preset and version on both sides",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(tensors[name], order="C")))
