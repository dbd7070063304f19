"""What every model that gives a logit for each disease measures, as sums that may be added over sites.

The logits are adjusted: the log odds of the global prevalence are part of them, so their sigmoid is a
probability at that prevalence. Histograms with 2,048 bins give AUROC, AUPRC and the calibration slope; sums
give Brier score and calibration error; replicates and subgroups come beside them.

Legend: R rows, D diseases, M bootstrap replicates, G groups, b bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.records import DISEASES
from cardionets_core.evaluation.calibration import (
    brier_score,
    calibration_sums,
    expected_calibration_error,
    fit_logistic,
)
from cardionets_core.evaluation.comparison import paired_difference
from cardionets_core.evaluation.histogram_delong import auroc_variance
from cardionets_core.evaluation.histogram_replicates import (
    bootstrap_histograms,
    coarse_histograms,
    replicate_interval,
)
from cardionets_core.evaluation.histograms import auprc, auroc, score_histograms
from cardionets_core.evaluation.small_groups import without_small_classes
from cardionets_core.privacy.counts import DIVISOR, HISTOGRAM, INNER, REPLICATES, Counts
from cardionets_core.tasks.base import Sums
from cardionets_core.tasks.groups import each_group, group_counts, sums_by_group

HISTOGRAMS: tuple[str, str] = ("positive", "negative")
Metric = Callable[[Mapping[str, np.ndarray]], np.ndarray]
SCORE_COUNTS: Counts = {"positive": HISTOGRAM, "negative": HISTOGRAM}
CALIBRATION_COUNTS: Counts = {"n": DIVISOR, "bin_n": INNER, "bin_label": INNER}
DISEASE_COUNTS: Counts = {
    **SCORE_COUNTS,
    **CALIBRATION_COUNTS,
    "boot_*": REPLICATES,
    **group_counts(SCORE_COUNTS),
}
"""Which of ``disease_sums`` are counts."""


def disease_sums(
    logit_RD: np.ndarray,
    label_RD: np.ndarray,
    *,
    cohort: Cohort,
    rows: np.ndarray,
    replicates: int,
    seed: int,
    smallest_cell: int = 1,
    draws: str = "",
) -> Sums:
    """Sums over the rows; zeros without rows, and for a disease of which few people are ill or well.

    Args:
        logit_RD: adjusted logits.
        label_RD: 1, 0, or NaN where not known.
        cohort: whose rows; gives people, sex and age.
        rows: int64 [R].
        replicates: M.
        seed: of the draws of people; equal seeds draw the same people, whatever the model.
        smallest_cell: fewest people in a class, and in a subgroup of it.
        draws: the site's secret; who knows the draws can solve the replicates for each person's part.

    Returns:
        ``positive``, ``negative`` [D, 2048]; ``n``, ``brier`` [D]; ``bin_n``, ``bin_probability``,
        ``bin_label`` [D, 15]; ``boot_positive``, ``boot_negative`` [M, D, 128]; ``sex_...`` and ``age_...``
        histograms [G, D, 2048], ``..._patients`` [2, G, D], ``..._withheld`` [G, D].
    """
    patient_R = cohort.row_patient[rows]
    label_RD = without_small_classes(label_RD, patient_R=patient_R, minimum=smallest_cell)
    replicated = bootstrap_histograms(
        logit_RD,
        label_RD,
        patient_R=patient_R,
        replicates=replicates,
        seed=seed,
        site=cohort.site + draws,
    )

    def histograms_of(places: np.ndarray) -> Sums:
        return score_histograms(logit_RD[places], label_RD[places])

    return {
        **score_histograms(logit_RD, label_RD),
        **calibration_sums(probabilities(logit_RD), label_RD),
        **{f"boot_{name}": value for name, value in replicated.items()},
        **sums_by_group(
            histograms_of,
            cohort=cohort,
            rows=rows,
            present_CRK=[label_RD == 1, label_RD == 0],
            smallest_cell=smallest_cell,
        ),
    }


def disease_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of (added) ``disease_sums``, for each disease (``auroc/cad``) and as means over them.

    ``auroc`` and ``auprc`` with the patient-clustered bootstrap's 95 % interval (``auroc_low/cad``),
    ``auroc_se`` (DeLong's, from the histograms, rows as independent), ``brier``, ``ece``,
    ``calibration_slope`` and ``calibration_intercept``, ``n``, ``positives``, ``prevalence``;
    ``auroc/cad/sex-F`` in a subgroup. A mean is over the diseases with both classes.
    """
    found = {
        **prevalence_metrics(sums),
        **with_interval("auroc", auroc, sums),
        **with_interval("auprc", auprc, sums),
        **by_disease("auroc_se", np.sqrt(auroc_variance(sums))),
        **calibration_metrics(sums),
    }
    for group, of_group in each_group(sums, HISTOGRAMS):
        for name, value in by_disease("auroc", auroc(of_group)).items():
            found[f"{name}/{group}"] = value
    return found


def auroc_replicates(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Replicates of the mean AUROC over the diseases with both classes, float64 [M], around its value."""
    defined = np.flatnonzero(np.isfinite(auroc(sums)))
    metric = _mean_of(auroc, defined)
    if not len(defined):
        return np.full(len(sums["boot_positive"]), np.nan)
    # The coarse bins' offset is taken from the replicates, as in ``replicate_interval``.
    return (metric(_replicates(sums)) + metric(sums) - metric(coarse_histograms(sums)))[:, 0]


def auroc_gain(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, float]:
    """AUROC of a first minus that of a second model, with the paired bootstrap's interval and p value.

    Args:
        first: (added) ``disease_sums`` of one model.
        second: of another on the same rows, with the same seed, replicates and sites.

    Returns:
        ``auroc_gain/cad``, ``auroc_gain_low/cad``, ``auroc_gain_high/cad``, ``auroc_gain_p/cad``, and
        ``auroc_gain_mean`` and so on over the diseases with both classes.
    """
    defined = np.flatnonzero(np.isfinite(auroc(first)) & np.isfinite(auroc(second)))
    parts: dict[str, Metric] = {f"/{DISEASES[d]}": _of_column(auroc, int(d)) for d in defined}
    if len(defined):
        parts["_mean"] = _mean_of(auroc, defined)
    found: dict[str, float] = {}
    for ending, metric in parts.items():
        values = []
        for sums in (first, second):
            # The coarse bins' offset is taken from the replicates, as in ``replicate_interval``.
            offset = metric(sums) - metric(coarse_histograms(sums))
            values.append((metric(sums)[0], (metric(_replicates(sums)) + offset)[:, 0]))
        (one, one_M), (other, other_M) = values
        gain = paired_difference(one_M, other_M, difference=float(one - other))
        endings = {"": gain.difference, "_low": gain.low, "_high": gain.high, "_p": gain.p_value}
        place = f"auroc_gain{{}}{ending}" if ending.startswith("/") else f"auroc_gain{ending}{{}}"
        found |= {place.format(name): value for name, value in endings.items() if np.isfinite(value)}
    return found


def probabilities(logit_RD: np.ndarray) -> np.ndarray:
    """Sigmoid in float64."""
    return expit(np.asarray(logit_RD, dtype=np.float64))


def prevalence_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """``n``, ``positives`` and ``prevalence`` of each disease with known labels."""
    positive, negative = (sums[name].sum(axis=-1) for name in HISTOGRAMS)
    known = np.where(positive + negative > 0, positive + negative, np.nan)
    return {
        **by_disease("n", known),
        **by_disease("positives", np.where(np.isnan(known), np.nan, positive)),
        **by_disease("prevalence", positive / known),
    }


def calibration_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """``brier``, ``ece`` and their means, ``calibration_slope`` and ``calibration_intercept``."""
    both = np.isfinite(auroc(sums))
    fit = fit_logistic(sums)
    found = {
        **by_disease("calibration_slope", fit.slope),
        **by_disease("calibration_intercept", fit.intercept),
    }
    for name, value in (("brier", brier_score(sums)), ("ece", expected_calibration_error(sums))):
        found |= by_disease(name, value)
        if both.any():
            found[f"{name}_mean"] = float(value[both].mean())
    return found


def with_interval(name: str, metric: Metric, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """A metric of histograms in each disease and as a mean, with the bootstrap's intervals."""
    value = metric(sums)
    low, high = replicate_interval(sums, _replicates(sums), metric=metric)
    found = {**by_disease(name, value), **by_disease(f"{name}_low", low), **by_disease(f"{name}_high", high)}
    defined = np.flatnonzero(np.isfinite(value))
    if len(defined):
        found[f"{name}_mean"] = float(value[defined].mean())
        (least,), (most,) = replicate_interval(sums, _replicates(sums), metric=_mean_of(metric, defined))
        if np.isfinite([least, most]).all():
            found[f"{name}_mean_low"], found[f"{name}_mean_high"] = float(least), float(most)
    return found


def by_disease(name: str, value_D: np.ndarray) -> dict[str, float]:
    """``name/cad`` and so on, where the value is finite."""
    return {f"{name}/{d}": float(v) for d, v in zip(DISEASES, value_D, strict=True) if np.isfinite(v)}


def _replicates(sums: Mapping[str, np.ndarray]) -> Sums:
    return {name: sums[f"boot_{name}"] for name in HISTOGRAMS}


def _mean_of(metric: Metric, columns: np.ndarray) -> Metric:
    return lambda sums: metric(sums)[..., columns].mean(axis=-1, keepdims=True)


def _of_column(metric: Metric, column: int) -> Metric:
    return lambda sums: metric(sums)[..., column : column + 1]
