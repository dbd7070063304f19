"""Model-contrastive distillation for sites without cines (MOON, arXiv 2103.16257; SCIENCE 5.3).

One value a row, from three embeddings of the same ECG: it decomposes.

Legend: B rows, E width of the embedding.
"""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from cardionets_core.losses.contrast_terms import row_cosines


def moon(
    local_BE: torch.Tensor,
    global_BE: torch.Tensor,
    *,
    previous_BE: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """``L_i = -log e^{s(z,zg)/t} / (e^{s(z,zg)/t} + e^{s(z,zprev)/t})`` with s the cosine.

    Pulls the local embedding to the global model's, away from that of the site's own last round. Equals ln 2
    where both are alike.

    Args:
        local_BE: embeddings z that are trained.
        global_BE: embeddings zg of the global model; without gradient.
        previous_BE: embeddings zprev of the site's model at the end of its last round; without gradient.
        temperature: t > 0.

    Returns:
        float32 ``[B]`` (float64 for float64 embeddings).
    """
    pull_B = row_cosines(local_BE, global_BE.detach())
    push_B = row_cosines(local_BE, previous_BE.detach())
    # The fraction is a logistic function of the difference; softplus does not overflow for a small t.
    return softplus((push_B - pull_B) / temperature)
