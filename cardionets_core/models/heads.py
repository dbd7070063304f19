"""Linear heads: the projections Pe and Pc into the common space, and the phenotype probe.

Their parameters are named ``weight`` and ``bias``.
"""

from __future__ import annotations

from torch import nn


def make_projection(feature_width: int, projection_width: int) -> nn.Linear:
    """``[B, feature_width]`` to ``[B, projection_width]``; the output is not normalised."""
    return nn.Linear(feature_width, projection_width)


def make_phenotype_probe(feature_width: int, phenotypes: int) -> nn.Linear:
    """``[B, feature_width]`` to ``[B, phenotypes]``, each column in the unit of its field."""
    return nn.Linear(feature_width, phenotypes)
