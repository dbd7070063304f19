"""Optimisers from the study's words. Their state, of a round or of a phase, never leaves the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from cardionets_core.config.study import Optimiser


def build_optimiser(
    modules: Mapping[str, nn.Module], trains: Sequence[str], *, spec: Optimiser, lr: float
) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD over the parameters that require a gradient, in the order of ``trains``.

    Weight decay acts on the matrices of linear maps and convolutions only: not on biases, norms, tokens,
    position or lead tables.

    Args:
        modules: prepared by the task.
        trains: names of the trained modules.
        spec: the study's settings.
        lr: rate of the first step; the schedule sets it anew before each step.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in trains:
        for name, parameter in modules[module].named_parameters():
            if parameter.requires_grad:
                is_matrix = name.rpartition(".")[2] == "weight" and parameter.ndim > 1
                (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=spec.momentum, fused=True)
    kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, betas=spec.betas, fused=True)
