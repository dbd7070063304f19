"""Heads: the projections Pe and Pc into the common space, the phenotype probe, and the heads Hr, Hk and Hs.

Legend: B rows, D width of a feature.
"""

from __future__ import annotations

import torch
from torch import nn

DISEASE_NAMES = ("cad", "cm", "hf", "pc", "ph")
SUBTYPE_NAMES = ("rcm", "dcm", "hcm")


def make_projection(feature_width: int, projection_width: int) -> nn.Linear:
    """``[B, feature_width]`` to ``[B, projection_width]``; the output is not normalised."""
    return nn.Linear(feature_width, projection_width)


def make_phenotype_probe(feature_width: int, phenotypes: int) -> nn.Linear:
    """``[B, feature_width]`` to ``[B, phenotypes]``, each column in the unit of its field."""
    return nn.Linear(feature_width, phenotypes)


def make_phenotype_head(feature_width: int, hidden: tuple[int, int], *, phenotypes: int) -> nn.Sequential:
    """``[B, feature_width]`` to ``[B, phenotypes]`` (standardised); two hidden layers, exact GELU."""
    return nn.Sequential(
        nn.Linear(feature_width, hidden[0]),
        nn.GELU(),
        nn.Linear(hidden[0], hidden[1]),
        nn.GELU(),
        nn.Linear(hidden[1], phenotypes),
    )


class ScreeningHead(nn.Module):
    """One linear map for each disease, which may be trained alone, and one for the subtype.

    Args:
        feature_width: D.
    """

    def __init__(self, feature_width: int) -> None:
        super().__init__()
        self.diseases = nn.ModuleDict({name: nn.Linear(feature_width, 1) for name in DISEASE_NAMES})
        self.subtype = nn.Linear(feature_width, len(SUBTYPE_NAMES))

    def forward(self, feature_BD: torch.Tensor) -> torch.Tensor:
        """Logits in the order of ``DISEASE_NAMES``, then of ``SUBTYPE_NAMES``: ``[B, 8]``."""
        diseases = [self.diseases[name](feature_BD) for name in DISEASE_NAMES]
        return torch.cat([*diseases, self.subtype(feature_BD)], dim=1)
