"""How patients and their diseases are spread over sites, and how unevenly they are.

Comes in: totals, a concentration and a generator. Goes out: whole numbers that add up exactly. Shares of
sites are drawn from a symmetric Dirichlet distribution, for diseases as in Hsu et al. 2019 (arXiv 1909.06335)
and Yurochkin et al. 2019 (arXiv 1905.12022): each disease's patients are dealt to the sites by shares of
their own. It knows no scenario.

Legend: S sites.
"""

from __future__ import annotations

import numpy as np

LARGEST_SHARE = 0.9
"""Of a site's patients that one disease may have: nobody's hospital is without healthy people."""


def dirichlet_shares(sites: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Shares [S] that add up to 1, from a symmetric Dirichlet distribution.

    Args:
        sites: S.
        alpha: concentration, above 0; large is even, small is uneven.
        rng: the only source of chance.
    """
    # In logarithms: with a small concentration plain gamma draws underflow to zero, all of them at times.
    logs = np.log(rng.standard_gamma(alpha + 1.0, sites)) + np.log(rng.random(sites)) / alpha
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum())


def apportion(total: int, shares: np.ndarray, *, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Whole numbers [S] near ``total`` times ``shares``, within bounds, that add up to ``total``.

    What a bound takes from one site goes to the others in proportion to their shares; what is left after
    rounding goes to the largest remainders.

    Args:
        total: between the sums of ``least`` and ``most``.
        shares: not negative.
        least: whole numbers [S].
        most: whole numbers [S].

    Raises:
        ValueError: the bounds leave no way.
    """
    if not least.sum() <= total <= most.sum():
        raise ValueError(f"{total} cannot be spread: the sites take {least.sum()} to {most.sum()}")
    # A site with no share at all still takes what the others cannot.
    shares = shares + 1e-12
    # One factor for all sites; the sum within the bounds grows with it, so it is found by halving.
    low, high = 0.0, float(most.max() / shares.min()) + 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if np.clip(middle * shares, least, most).sum() < total:
            low = middle
        else:
            high = middle
    exact = np.clip(high * shares, least, most)
    counts = np.clip(np.floor(exact + 1e-9).astype(int), least, most)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        room = counts < most if step > 0 else counts > least
        counts[int(np.argmax(np.where(room, step * (exact - counts), -np.inf)))] += step
    return np.asarray(counts)


def spread_sizes(
    total: int, sites: int, *, alpha: float | None, least: int, rng: np.random.Generator
) -> np.ndarray:
    """Patients of each site [S]: equal without a concentration, else by Dirichlet shares.

    Raises:
        ValueError: ``total`` is below ``least`` for each.
    """
    shares = np.full(sites, 1.0 / sites) if alpha is None else dirichlet_shares(sites, alpha, rng)
    bounds = np.full(sites, least), np.full(sites, total)
    return apportion(total, shares, least=bounds[0], most=bounds[1])


def spread_cases(
    total: int, sizes: np.ndarray, *, alpha: float | None, rng: np.random.Generator
) -> np.ndarray:
    """Patients with one disease at each site [S]: in proportion to the sizes, or by Dirichlet shares.

    Args:
        total: with the disease, over all sites.
        sizes: patients of each site; a site has at most ``LARGEST_SHARE`` of them ill.
        alpha: None for the same prevalence everywhere.
        rng: the only source of chance.
    """
    shares = sizes / sizes.sum() if alpha is None else dirichlet_shares(len(sizes), alpha, rng)
    most = np.floor(LARGEST_SHARE * sizes).astype(int)
    return apportion(min(total, int(most.sum())), shares, least=np.zeros_like(most), most=most)


def evenness(counts: np.ndarray) -> float:
    """Entropy of the sites' shares over that of equal shares: 1 is even, 0 is all at one site; 1 for none."""
    total = counts.sum()
    if total <= 0 or len(counts) < 2:
        return 1.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum() / np.log(len(counts)))


def divergence(cases: np.ndarray, sizes: np.ndarray) -> float:
    """How far the sites' prevalences lie apart: mean total variation from the prevalence of all, by size.

    0 where every site has the same prevalence; of one disease, so at most 2 p (1 - p) in the limit.
    """
    overall = cases.sum() / sizes.sum()
    return float((sizes / sizes.sum() * np.abs(cases / sizes - overall)).sum())
