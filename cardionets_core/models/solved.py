"""Modules whose numbers are solved from sums over all sites, and never trained by steps (SCIENCE 5.5).

They begin neutral: each then does nothing, or as little as it can.

Legend: B rows, J phenotypes, D width of a feature, P principal coordinates.
"""

from __future__ import annotations

import torch
from torch import nn


class Solved(nn.Module):
    """A module that holds numbers; no weights are drawn."""

    def draw_weights(self, generator: torch.Generator) -> None:
        """The neutral values of the constructor stay."""


class PhenotypeStandardiser(Solved):
    """Mean and SD of each phenotype. Neutral: 0 and 1.

    Args:
        phenotypes: J.
    """

    def __init__(self, phenotypes: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(phenotypes))
        self.deviation = nn.Parameter(torch.ones(phenotypes))

    def forward(self, values_BJ: torch.Tensor) -> torch.Tensor:
        """``standardise``."""
        return self.standardise(values_BJ)

    def standardise(self, values_BJ: torch.Tensor) -> torch.Tensor:
        """From the unit of each field to units of its SD; NaN stays NaN."""
        return (values_BJ - self.mean) / self.deviation

    def restore(self, standardised_BJ: torch.Tensor) -> torch.Tensor:
        """The inverse of ``standardise``."""
        return standardised_BJ * self.deviation + self.mean


class ScreeningPrior(Solved):
    """How common each disease is, over all sites. Neutral: every prevalence one half, equal subtypes.

    Args:
        diseases: number of diseases.
        subtypes: number of subtypes.
    """

    def __init__(self, diseases: int, subtypes: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(diseases))
        self.log_share = nn.Parameter(torch.zeros(subtypes))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits adjusted by the prevalence: ``logit + log(pi / (1 - pi))``, and ``logit + log share``.

        Args:
            logits: ``[B, diseases]`` or ``[B, diseases + subtypes]``.
        """
        return logits + torch.cat([self.logit, self.log_share])[: logits.shape[1]]


class ScreeningCalibration(Solved):
    """Slope and intercept of each disease's logit (Platt), and where it counts as positive. Neutral: 1, 0, 0.

    ``threshold`` is on the scale of the calibrated logit; 0 is a probability of one half.

    Args:
        diseases: number of diseases.
    """

    def __init__(self, diseases: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(diseases))
        self.intercept = nn.Parameter(torch.zeros(diseases))
        self.threshold = nn.Parameter(torch.zeros(diseases))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated logits of the diseases; further columns stay as they are."""
        count = len(self.slope)
        calibrated = logits[:, :count] * self.slope + self.intercept
        return torch.cat([calibrated, logits[:, count:]], dim=1)


class CmrPrincipal(Solved):
    """Principal components of the frozen cine feature over all sites. Neutral: the first P coordinates.

    All P coordinates are the target of the cosine loss. The weighted InfoNCE measures distances in the first
    ``min(128, D/2)`` of them; ``sigma_squared`` is its scale, of the same axes (SCIENCE 5.2f).

    Args:
        width: D.
        components: P.
    """

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width))
        self.components = nn.Parameter(torch.eye(components, width))
        self.variance = nn.Parameter(torch.ones(components))
        self.sigma_squared = nn.Parameter(torch.ones(1))

    def forward(self, feature_BD: torch.Tensor) -> torch.Tensor:
        """Centred principal coordinates, ``[B, P]``."""
        return (feature_BD - self.mean) @ self.components.T
