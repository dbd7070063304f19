"""Random-effects meta-analysis of the sites' estimates.

A pooled AUROC mixes comparisons inside sites with those between them; the meta-analysis asks what to expect
at a site of this kind. Between-site variance after DerSimonian and Laird (1986), interval after Hartung and
Knapp (2001), prediction interval after Higgins (2009).

Legend: S sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import chi2, norm, t


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomEffects:
    """What the sites say together; all NaN without a usable site.

    Attributes:
        sites: number of sites with a finite estimate and a variance above 0; the others are left out.
        estimate: mean over sites, weighted by ``1 / (variance + tau2)``.
        standard_error: of the mean.
        low: lower end of its interval.
        high: upper end.
        tau2: variance between sites, at least 0.
        i2: share of the observed variation that is between sites, 0..1.
        q: Cochran's heterogeneity statistic.
        q_p_value: of q under no heterogeneity; NaN with one site.
        predicted_low: lower end of the interval for a new site's true value; NaN with fewer than 3 sites.
        predicted_high: upper end.
    """

    sites: int
    estimate: float
    standard_error: float
    low: float
    high: float
    tau2: float
    i2: float
    q: float
    q_p_value: float
    predicted_low: float
    predicted_high: float


def random_effects(
    estimate_S: np.ndarray, variance_S: np.ndarray, *, level: float = 0.95, never_narrower: bool = True
) -> RandomEffects:
    """Pool estimates of independent sites.

    Args:
        estimate_S: on a scale where they are about normal; ``logit_auroc`` for AUROCs.
        variance_S: of each estimate, within its site.
        level: of the intervals.
        never_narrower: the Hartung-Knapp error is never below the classical one (Roever 2015). Without it,
            sites that agree by chance give an interval that is far too narrow.

    Returns:
        With one site its own estimate and a normal interval, and tau2 = 0.
    """
    estimate, variance = np.asarray(estimate_S, dtype=np.float64), np.asarray(variance_S, dtype=np.float64)
    usable = np.isfinite(estimate) & np.isfinite(variance) & (variance > 0)
    estimate, variance = estimate[usable], variance[usable]
    sites = len(estimate)
    nan = float("nan")
    if not sites:
        return _result(0, mean=nan, error=nan, half=nan, tau2=nan, q=nan, level=level)
    fixed = 1.0 / variance
    q = float((fixed * (estimate - (fixed * estimate).sum() / fixed.sum()) ** 2).sum())
    tau2 = 0.0
    if sites > 1:
        tau2 = max(0.0, (q - (sites - 1)) / float(fixed.sum() - (fixed**2).sum() / fixed.sum()))
    weight = 1.0 / (variance + tau2)
    mean = float((weight * estimate).sum() / weight.sum())
    error = float(np.sqrt(1.0 / weight.sum()))
    quantile = float(norm.isf((1.0 - level) / 2.0))
    if sites > 1:
        scale = float((weight * (estimate - mean) ** 2).sum()) / (sites - 1)
        error *= float(np.sqrt(max(scale, 1.0) if never_narrower else scale))
        quantile = float(t.isf((1.0 - level) / 2.0, sites - 1))
    return _result(sites, mean=mean, error=error, half=quantile * error, tau2=tau2, q=q, level=level)


def logit_auroc(auroc_S: np.ndarray, variance_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs and their variances on the logit scale (delta method); NaN where an AUROC is 0, 1 or NaN."""
    inside = (auroc_S > 0) & (auroc_S < 1)
    value = np.where(inside, auroc_S, 0.5)
    transformed = np.where(inside, logit(value), np.nan)
    return transformed, np.where(inside, variance_S / (value * (1.0 - value)) ** 2, np.nan)


def from_logit(value: float) -> float:
    """Back to the AUROC's scale."""
    return float(expit(value))


def _result(
    sites: int, *, mean: float, error: float, half: float, tau2: float, q: float, level: float
) -> RandomEffects:
    several = sites > 1
    spread = float("nan")
    if sites > 2:
        spread = float(t.isf((1.0 - level) / 2.0, sites - 2) * np.sqrt(tau2 + error**2))
    return RandomEffects(
        sites=sites,
        estimate=mean,
        standard_error=error,
        low=mean - half,
        high=mean + half,
        tau2=tau2,
        i2=max(0.0, (q - (sites - 1)) / q) if several and q > 0 else (0.0 if sites else float("nan")),
        q=q,
        q_p_value=float(chi2.sf(q, sites - 1)) if several else float("nan"),
        predicted_low=mean - spread,
        predicted_high=mean + spread,
    )
