"""What a model looks at: attribution to leads and times, and ECG tokens against CMR patches. Arrays only.

Integrated gradients (Sundararajan 2017) sum to the change of the output from the baseline to the window, so
the shares of leads and times may be compared. An encoder that normalises each patch hardly changes until the
window has almost faded to a flat baseline; the path is therefore sampled most densely near the baseline, and
the attribution comes with the part of the change that it misses.

Legend: B windows, L leads, T samples, S time bins, P patches of a lead, N CMR patches, D width of tokens,
E width of the common space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

STEPS = 64
# The path's parameter is u^3: with u spread evenly, 21 % of the steps lie within 1 % of the baseline.
WARP = 3

Projection = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Integrated gradients of a batch.

    Attributes:
        attribution_BLT: float64; positive samples raise the output.
        output_B: output at the window.
        baseline_B: output at the baseline.
        gap_B: ``output - baseline - sum of the attribution``; far from 0, more steps are needed.
    """

    attribution_BLT: torch.Tensor
    output_B: torch.Tensor
    baseline_B: torch.Tensor
    gap_B: torch.Tensor


def integrated_gradients(
    output: Callable[[torch.Tensor], torch.Tensor],
    ecg_BLT: torch.Tensor,
    *,
    baseline_BLT: torch.Tensor | None = None,
    steps: int = STEPS,
) -> Attribution:
    """Attribute a scalar output to the samples of each window.

    ``(x - b) * integral_0^1 grad f(b + a (x - b)) da`` by Gauss-Legendre quadrature in u with ``a = u^3``.

    Args:
        output: windows [B, L, T] to one number each [B], such as one phenotype in SD or one logit; each
            depends on its own window. The model is in evaluation mode; its parameters get no gradient.
        ecg_BLT: windows, as the model takes them.
        baseline_BLT: where the path begins, broadcast to the windows; zeros (a flat trace) if not given.
        steps: number of evaluations of the gradient.

    Raises:
        ValueError: ``output`` does not give one number a window, or steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed")
    end = ecg_BLT.detach()
    start = torch.zeros_like(end) if baseline_BLT is None else baseline_BLT.detach().expand_as(end)
    with torch.no_grad():
        output_B, baseline_B = output(end), output(start)
    if output_B.shape != end.shape[:1]:
        raise ValueError(f"output has shape {tuple(output_B.shape)}; one number a window is needed")
    node, weight = np.polynomial.legendre.leggauss(steps)
    mean = torch.zeros_like(end, dtype=torch.float64)
    for u, share in zip((node + 1.0) / 2.0, weight / 2.0, strict=True):
        with torch.enable_grad():
            between = (start + float(u**WARP) * (end - start)).requires_grad_(True)
            (gradient,) = torch.autograd.grad(output(between).sum(), between)
        mean += gradient.double() * float(share * WARP * u ** (WARP - 1))
    found = mean * (end - start).double()
    output_B, baseline_B = output_B.double(), baseline_B.double()
    return Attribution(
        attribution_BLT=found,
        output_B=output_B,
        baseline_B=baseline_B,
        gap_B=output_B - baseline_B - found.sum(dim=(1, 2)),
    )


def lead_time_map(attribution_BLT: torch.Tensor, *, bins: int) -> np.ndarray:
    """Sum the attribution over time bins of equal length: float64 [B, L, S]; the total stays the same.

    Raises:
        ValueError: the samples do not divide into the bins.
    """
    samples = attribution_BLT.shape[2]
    if bins < 1 or samples % bins:
        raise ValueError(f"{samples} samples do not divide into {bins} bins")
    return attribution_BLT.double().unflatten(2, (bins, -1)).sum(dim=3).cpu().numpy()


def similarity_map(
    ecg_LPD: torch.Tensor,
    cmr_ND: torch.Tensor,
    *,
    ecg_projection: Projection,
    cmr_projection: Projection,
) -> np.ndarray:
    """Cosine of each ECG token with each CMR patch token in the common space.

    Args:
        ecg_LPD: tokens of one window, as the projection takes them.
        cmr_ND: patch tokens of one cine, without the class token, in the order of the rows of the image.
        ecg_projection: [..., D] to [..., E].
        cmr_projection: [..., D] to [..., E].

    Returns:
        float64 [L, P, N], within -1..1; 0 for a token that is projected to zero.
    """
    with torch.no_grad():
        ecg_LPE = normalize(ecg_projection(ecg_LPD).double(), dim=-1)
        cmr_NE = normalize(cmr_projection(cmr_ND).double(), dim=-1)
        return torch.einsum("lpe,ne->lpn", ecg_LPE, cmr_NE).clamp(-1.0, 1.0).cpu().numpy()
