"""Which tokens of a latent the generator sees, in training and while it samples (SCIENCE section 4).

Legend: B rows, L tokens, V visible tokens, H hidden tokens, S autoregressive steps.
"""

from __future__ import annotations

import math

import torch

from cardionets_core.models.masking import PatchMask

LOWEST_RATE = 0.7
DEVIATION = 0.25


def draw_mask_rate(generator: torch.Generator) -> float:
    """Share of hidden tokens: normal with mean 1 and SD .25, truncated to [.7, 1] (mean .867).

    Args:
        generator: a CPU generator; one value is drawn from it.
    """
    uniform = torch.rand((), dtype=torch.float64, generator=generator)
    lowest = torch.special.ndtr(torch.tensor((LOWEST_RATE - 1.0) / DEVIATION, dtype=torch.float64))
    share = lowest + uniform * (0.5 - lowest)
    return min(max(1.0 + DEVIATION * float(torch.special.ndtri(share)), LOWEST_RATE), 1.0)


def draw_generator_mask(rows: int, *, tokens: int, generator: torch.Generator) -> PatchMask:
    """One mask rate r for the batch, ``ceil(L r)`` hidden tokens of each row, at random places.

    Args:
        rows: B.
        tokens: L.
        generator: a CPU generator.

    Returns:
        ``visible`` ``[B, V]`` (V may be 0) and ``hidden`` ``[B, H]``, both ascending.
    """
    visible = tokens - math.ceil(tokens * draw_mask_rate(generator))
    order = torch.rand(rows, tokens, generator=generator).argsort(dim=1)
    return PatchMask(
        visible=order[:, :visible].sort(dim=1).values, hidden=order[:, visible:].sort(dim=1).values
    )


def new_tokens(tokens: int, steps: int) -> tuple[int, ...]:
    """How many tokens each step of sampling makes; the sum is L.

    Step s leaves ``floor(L cos(pi/2 (s + 1)/S))`` hidden, at least 1 and at most one fewer than before; the
    last leaves none.

    Raises:
        ValueError: there are not 1 to L steps.
    """
    if not 1 <= steps <= tokens:
        raise ValueError(f"{steps} steps for {tokens} tokens; take 1 to {tokens}")
    made, hidden = [], tokens
    for step in range(steps - 1):
        left = math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / steps))
        left = max(1, min(hidden - 1, left))
        made.append(hidden - left)
        hidden = left
    return (*made, hidden)
