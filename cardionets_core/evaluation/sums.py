"""Adding the sums of several sites: always in the order of the sites' names, so that the bytes repeat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardionets_core.errors import ReplyRefusedError


def add_sums(by_site: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Add arrays of equal names over sites.

    Args:
        by_site: site to its sums; at least one site.

    Returns:
        float64 arrays, in the order of their names.

    Raises:
        ReplyRefusedError: a site's names or shapes differ from the others', or a value is not finite.
    """
    if not by_site:
        raise ValueError("no site to add")
    first, *others = sorted(by_site)
    total = {name: np.array(by_site[first][name], dtype=np.float64) for name in sorted(by_site[first])}
    _refuse_unlike(total, by_site[first], site=first)
    for site in others:
        _refuse_unlike(total, by_site[site], site=site)
        for name in total:
            total[name] = total[name] + np.asarray(by_site[site][name], dtype=np.float64)
    return total


def _refuse_unlike(total: Mapping[str, np.ndarray], sums: Mapping[str, np.ndarray], *, site: str) -> None:
    faults = [f"{name} is absent" for name in total if name not in sums]
    faults += [f"{name} is unknown" for name in sorted(sums) if name not in total]
    for name in sorted(set(total) & set(sums)):
        if np.shape(sums[name]) != total[name].shape:
            faults.append(f"{name} has shape {np.shape(sums[name])}, not {total[name].shape}")
        elif not np.isfinite(sums[name]).all():
            faults.append(f"{name} is not finite")
    if faults:
        raise ReplyRefusedError(
            f"sums of site {site} do not fit: {'; '.join(faults)}",
            where="evaluation",
            remedy="use the same version, preset and options at every site",
        )
