"""DeLong's variance of the AUROC, and the comparison of models on the same rows, in O(n log n).

The structural components (DeLong, DeLong and Clarke-Pearson 1988) come from midranks (Sun and Xu 2014). Where
a person has several rows, their components are summed before the variance is taken (Obuchowski 1997); with
one row a person that is DeLong's estimate exactly. A site computes it on its own rows: the components belong
to single people and never leave it, the estimate and its covariance may.

Legend: M models, R rows, P positive rows, N negative rows, Q people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm, rankdata

from cardionets_core.evaluation.histograms import refuse_strange_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class DeLong:
    """AUROCs of several models on the same rows.

    Attributes:
        auroc_M: ties count one half; NaN without positives or negatives.
        covariance_MM: of the AUROCs; NaN with fewer than two people of either class.
        positives: rows.
        negatives: rows.
    """

    auroc_M: np.ndarray
    covariance_MM: np.ndarray
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AurocDifference:
    """First minus second model.

    Attributes:
        difference: of the AUROCs.
        standard_error: of the difference.
        z: difference over standard error; NaN where the error is 0 or unknown.
        p_value: two-sided; 1 where the models rank all pairs alike, NaN where it is unknown.
    """

    difference: float
    standard_error: float
    z: float
    p_value: float


def delong(score_MR: np.ndarray, label_R: np.ndarray, *, patient_R: np.ndarray | None = None) -> DeLong:
    """AUROC and covariance of each model.

    Args:
        score_MR: higher means more likely positive; any monotone scale.
        label_R: 1, 0, or NaN for rows that do not count.
        patient_R: int, the person of each row; every row is a person of its own if not given.

    Raises:
        ValueError: a label is neither 0, 1 nor NaN, or a score of a row that counts is NaN.
    """
    refuse_strange_labels(label_R)
    counted_R = ~np.isnan(label_R)
    score = np.asarray(score_MR, dtype=np.float64)[:, counted_R]
    if np.isnan(score).any():
        raise ValueError("a score is NaN: it has no place among the others")
    positive_R = label_R[counted_R] == 1
    person_R = np.arange(score.shape[1]) if patient_R is None else np.asarray(patient_R)[counted_R]
    models, p, n = len(score), int(positive_R.sum()), int((~positive_R).sum())
    if not p or not n:
        nothing = np.full(models, np.nan)
        return DeLong(
            auroc_M=nothing, covariance_MM=np.full((models, models), np.nan), positives=p, negatives=n
        )
    midrank_MR = rankdata(score, axis=1)
    # Share of the other class that each row beats (positives) or is beaten by (negatives).
    part_MP = (midrank_MR[:, positive_R] - rankdata(score[:, positive_R], axis=1)) / n
    part_MN = 1.0 - (midrank_MR[:, ~positive_R] - rankdata(score[:, ~positive_R], axis=1)) / p
    auroc_M = part_MP.mean(axis=1)
    covariance_MM = _covariance(
        part_MP - auroc_M[:, None], part_MN - auroc_M[:, None],
        person_P=person_R[positive_R], person_N=person_R[~positive_R],
    )  # fmt: skip
    return DeLong(auroc_M=auroc_M, covariance_MM=covariance_MM, positives=p, negatives=n)


def auroc_interval(found: DeLong, *, model: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Interval on the logit scale, within 0..1; (nan, nan) where the AUROC is 0, 1 or undefined."""
    value, variance = float(found.auroc_M[model]), float(found.covariance_MM[model, model])
    if not (0.0 < value < 1.0 and np.isfinite(variance)):
        return float("nan"), float("nan")
    half = norm.isf((1.0 - level) / 2.0) * np.sqrt(variance) / (value * (1.0 - value))
    centre = np.log(value / (1.0 - value))
    return float(expit(centre - half)), float(expit(centre + half))


def auroc_difference(found: DeLong, *, first: int = 0, second: int = 1) -> AurocDifference:
    """DeLong's test of two models on the same rows."""
    difference = float(found.auroc_M[first] - found.auroc_M[second])
    covariance = found.covariance_MM
    variance = float(covariance[first, first] + covariance[second, second] - 2.0 * covariance[first, second])
    # Equal models leave rounding noise where there is no variance.
    noise = 1e-14 * float(covariance[first, first] + covariance[second, second])
    error = float(np.sqrt(variance)) if variance > noise else (0.0 if np.isfinite(variance) else float("nan"))
    if error > 0.0:
        z = difference / error
        return AurocDifference(
            difference=difference, standard_error=error, z=z, p_value=float(2.0 * norm.sf(abs(z)))
        )
    same = error == 0.0 and abs(difference) < 1e-14
    return AurocDifference(
        difference=difference,
        standard_error=error,
        z=float("nan"),
        p_value=1.0 if same else float("nan"),
    )


def _covariance(
    part_MP: np.ndarray, part_MN: np.ndarray, *, person_P: np.ndarray, person_N: np.ndarray
) -> np.ndarray:
    """Obuchowski's covariance from centred components: within positives, within negatives, and between."""
    models, p, n = len(part_MP), len(person_P), len(person_N)
    people, inverse = np.unique(np.concatenate([person_P, person_N]), return_inverse=True)
    ill_MQ, well_MQ = np.zeros((models, len(people))), np.zeros((models, len(people)))
    for model in range(models):
        ill_MQ[model] = np.bincount(inverse[:p], weights=part_MP[model], minlength=len(people))
        well_MQ[model] = np.bincount(inverse[p:], weights=part_MN[model], minlength=len(people))
    with_ill = len(np.unique(person_P))
    with_well = len(np.unique(person_N))
    if with_ill < 2 or with_well < 2:
        return np.full((models, models), np.nan)
    within_ill = with_ill / (with_ill - 1) * (ill_MQ @ ill_MQ.T) / p**2
    within_well = with_well / (with_well - 1) * (well_MQ @ well_MQ.T) / n**2
    between = len(people) / (len(people) - 1) * (ill_MQ @ well_MQ.T) / (p * n)
    return within_ill + within_well + between + between.T
