"""Calibration of the screening head and its operating thresholds, from the validation rows of all sites.

A closed-form task after ``screening``. Sites send score histograms of their VALIDATION rows, on which nothing
was trained; the server solves Platt's slope and intercept and one threshold for each disease. Measured on the
test split, this is what the model does as a test.

Legend: R rows, D diseases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.cohort import Split
from cardionets_core.data.records import DISEASES
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation.calibration import calibration_sums, fit_logistic
from cardionets_core.evaluation.histograms import score_histograms
from cardionets_core.evaluation.operating_points import threshold_at_sensitivity
from cardionets_core.evaluation.small_groups import without_small_classes
from cardionets_core.evaluation.subgroups import people_by_cell
from cardionets_core.models.solved import ScreeningCalibration, ScreeningPrior
from cardionets_core.privacy.counts import CELL, Counts, under
from cardionets_core.tasks.base import ClosedFormTask, Modules, Scalar, SiteView, Sums, count_sums
from cardionets_core.tasks.binary_sums import (
    CALIBRATION_COUNTS,
    SCORE_COUNTS,
    calibration_metrics,
    prevalence_metrics,
    probabilities,
)
from cardionets_core.tasks.decisions import DECISION_COUNTS, decision_metrics, decision_sums
from cardionets_core.tasks.head_task import apply_head
from cardionets_core.tasks.row_features import mean_features

FEWEST_PEOPLE = 5
UNCALIBRATED = "uncalibrated_"
BINNED: tuple[str, ...] = ("n", "brier", "bin_n", "bin_probability", "bin_label")


class Calibrate(ClosedFormTask):
    """Platt's map and a threshold for each disease.

    Options:
        sensitivity: the threshold is the highest at which the validation rows' sensitivity is at least this.
    """

    name = "calibrate"
    trains = ("screening_calibration",)
    reads = ("ecg_encoder", "screening_head", "screening_prior")
    needs = frozenset({"ecg", "labels"})
    decomposes = False
    primary = "ece_mean"
    higher_is_better = False
    defaults: ClassVar[dict[str, Scalar]] = {"sensitivity": 0.9}
    counts: ClassVar[Counts] = {
        **SCORE_COUNTS,
        **CALIBRATION_COUNTS,
        **under(UNCALIBRATED, CALIBRATION_COUNTS),
        **DECISION_COUNTS,
        "people_*": CELL,
    }

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        if not 0.0 < self._number("sensitivity") <= 1.0:
            raise ConfigError(
                "sensitivity is above 0 and at most 1", where="study: phases: options of task calibrate"
            )

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """Of the validation rows: ``positive``, ``negative`` [D, 2048] on the adjusted logit, and people.

        ``people_positive``, ``people_negative`` [D] count people with a row of either class.
        """
        rows = site.rows(self.needs, "validation")
        logit_RD, label_RD = self._scores(modules, site, "validation")
        found: Sums = score_histograms(logit_RD, label_RD)
        for name, value in (("positive", 1.0), ("negative", 0.0)):
            people_1D = people_by_cell(
                np.zeros(len(rows), dtype=np.int64),
                groups=1,
                patient_R=site.cohort.row_patient[rows],
                present_RK=label_RD == value,
            )
            found[f"people_{name}"] = people_1D[0].astype(np.float64)
        return found

    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``slope``, ``intercept`` and ``threshold`` [D], float32.

        A disease keeps slope 1 and intercept 0 where fewer than five people of either class are in the
        validation rows, where the classes do not overlap, and where the slope is not above 0 (then the head
        ranks no better than chance). The threshold is an edge of the bins, mapped by slope and intercept and
        rounded down, so that the validation rows reach the sensitivity exactly. Where the lowest bin is
        needed it calls everybody positive; with fewer than five positive people it stays 0.
        """
        ill = sums["people_positive"] >= FEWEST_PEOPLE
        fit = fit_logistic(sums)
        fitted = ill & (sums["people_negative"] >= FEWEST_PEOPLE) & (np.nan_to_num(fit.slope) > 0)
        slope = np.where(fitted, fit.slope, 1.0).astype(np.float32)
        intercept = np.where(fitted, fit.intercept, 0.0).astype(np.float32)
        edge = threshold_at_sensitivity(sums, self._number("sensitivity"))
        threshold = np.where(ill, slope.astype(np.float64) * edge + intercept, 0.0)
        return {"slope": slope, "intercept": intercept, "threshold": _round_down(threshold)}

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Histograms and calibration sums of the calibrated logits, decisions at the stored thresholds.

        ``uncalibrated_...`` are the calibration sums before the map. ``prior_rows`` and ``threshold_rows``
        [D] are the global prevalence and the threshold's probability times the rows: all sites hold the same
        numbers, so their sums over the sum of rows give them back.
        """
        rows = site.rows(self.needs, split)
        raw_RD, label_RD = self._scores(modules, site, split)
        calibration = cast(ScreeningCalibration, modules["screening_calibration"])
        slope, intercept, threshold = (
            value.detach().double().cpu().numpy()
            for value in (calibration.slope, calibration.intercept, calibration.threshold)
        )
        prior = cast(ScreeningPrior, modules["screening_prior"]).logit.detach().cpu().numpy()
        logit_RD = raw_RD * slope + intercept
        before = calibration_sums(probabilities(raw_RD), label_RD)
        return {
            **count_sums(site.cohort, rows),
            **score_histograms(logit_RD, label_RD),
            **calibration_sums(probabilities(logit_RD), label_RD),
            **{UNCALIBRATED + name: value for name, value in before.items()},
            **decision_sums(
                logit_RD >= threshold,
                label_RD,
                cohort=site.cohort,
                rows=rows,
                smallest_cell=site.smallest_cell,
            ),
            "prior_rows": len(rows) * probabilities(prior),
            "threshold_rows": len(rows) * probabilities(threshold),
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Calibration and decisions; names as in ``calibration_metrics`` and ``decision_metrics``.

        Beside them ``brier_uncalibrated_mean`` and ``ece_uncalibrated_mean``, ``threshold/cad`` as a
        probability, and ``prior/cad``, the global prevalence.
        """
        rows = float(sums["n_rows"][0])
        found = {"n_rows": rows, "n_patients": float(sums["n_patients"][0])}
        if rows <= 0:
            return found
        before = {**sums, **{name: sums[UNCALIBRATED + name] for name in BINNED}}
        for name, value in calibration_metrics(before).items():
            if name in ("brier_mean", "ece_mean"):
                found[name.replace("_mean", "_uncalibrated_mean")] = value
        prior_D = sums["prior_rows"] / rows
        for place, disease in enumerate(DISEASES):
            found[f"prior/{disease}"] = float(prior_D[place])
            found[f"threshold/{disease}"] = float(sums["threshold_rows"][place] / rows)
        return {
            **found,
            **prevalence_metrics(sums),
            **calibration_metrics(sums),
            **decision_metrics(sums, prevalence_D=prior_D),
        }

    def _scores(self, modules: Modules, site: SiteView, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Adjusted logits and labels of a split, float64 [R, D]; those of rare diseases are NaN."""
        rows = site.rows(self.needs, split)
        label_RD = without_small_classes(
            site.cohort.diseases[rows, : len(DISEASES)].astype(np.float64),
            patient_R=site.cohort.row_patient[rows],
            minimum=site.smallest_cell,
        )
        if not len(rows):
            return np.zeros_like(label_RD), label_RD
        feature_RW = mean_features(modules, site, needs=self.needs, split=split, frozen=True).to(site.device)
        adjusted = torch.nn.Sequential(modules["screening_head"], modules["screening_prior"])
        return apply_head(adjusted, feature_RW).numpy()[:, : len(DISEASES)], label_RD


def _round_down(value_D: np.ndarray) -> np.ndarray:
    """float32, never above the value; minus infinity becomes the smallest number."""
    least = np.finfo(np.float32).min
    found = np.maximum(value_D, float(least)).astype(np.float32)
    return np.where(found > value_D, np.nextafter(found, least), found).astype(np.float32)
