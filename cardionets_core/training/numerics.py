"""How a site does its arithmetic: precision, compilation, batches made ahead. Never what is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from cardionets_core.models.cmr_diffusion import CmrDiffusionBlock
from cardionets_core.models.swin import SwinBlock
from cardionets_core.models.transformer import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """A site's choice.

    Attributes:
        precision: ``bf16`` runs matrix products under autocast; weights, gradients, optimiser and every loss
            stay in fp32. Worth it on GPUs; slower than fp32 on processors without matrix units.
        compile: compile the transformer blocks. Costs a start of a minute or so.
        prefetch: batches made ahead.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    prefetch: int = 0

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context for forward passes."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def compile_blocks(modules: Iterable[nn.Module]) -> None:
    """Compile every transformer block in place, once; equal blocks share one compilation."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, Block | CmrDiffusionBlock | SwinBlock) and part._compiled_call_impl is None:
                part.compile()
