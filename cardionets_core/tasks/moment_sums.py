"""The moments of the cross-correlation loss as sums that may be added over sites (SCIENCE 5.2d, 5.5).

Legend: E width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from cardionets_core.losses.dcco import Moments


def moment_sums(moments: Moments) -> dict[str, np.ndarray]:
    """Sums over the rows behind the moments.

    Returns:
        float64: ``n`` (1,), ``Sf``, ``Sg``, ``Sff``, ``Sgg`` [E], ``Sfg`` [E, E]; zeros for no row.
    """
    n = float(moments.n)

    def total(mean: torch.Tensor) -> np.ndarray:
        return n * mean.detach().cpu().numpy()

    return {
        "n": np.array([n]),
        "Sf": total(moments.f_E),
        "Sg": total(moments.g_E),
        "Sff": total(moments.ff_E),
        "Sgg": total(moments.gg_E),
        "Sfg": total(moments.fg_EE),
    }


def moments_from_sums(sums: Mapping[str, np.ndarray], *, device: torch.device) -> Moments:
    """The moments of (added) ``moment_sums``, on a device, without gradient."""
    n = float(sums["n"][0])

    def mean(name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(sums[name], dtype=np.float64) / max(n, 1.0)).to(device)

    return Moments(
        n=torch.tensor(n, dtype=torch.float64, device=device),
        f_E=mean("Sf"),
        g_E=mean("Sg"),
        ff_E=mean("Sff"),
        gg_E=mean("Sgg"),
        fg_EE=mean("Sfg"),
    )
