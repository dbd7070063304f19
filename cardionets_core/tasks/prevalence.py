"""How common each disease and subtype is over all sites, from counts (SCIENCE 4 "screening" and 5.5).

A closed-form task, before any that trains on labels. It counts rows as their loss sees them: every training
ECG with any label, so a person with five ECGs counts five times.

Legend: R rows, D diseases, C subtypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cardionets_core.data.cohort import Split
from cardionets_core.data.records import DISEASES, SUBTYPES
from cardionets_core.evaluation.small_groups import without_small_classes, without_small_subtypes
from cardionets_core.evaluation.subgroups import people_by_cell
from cardionets_core.privacy.counts import CELL, Count, Counts
from cardionets_core.tasks.base import ClosedFormTask, Modules, SiteView, Sums, count_sums
from cardionets_core.tasks.prevalence_sums import (
    prevalence_log_odds,
    prevalence_sums,
    subtype_log_shares,
    subtype_sums,
)
from cardionets_core.tasks.subtype_scores import subtype_index


class Prevalence(ClosedFormTask):
    """Log odds of each disease and log share of each subtype."""

    name = "prevalence"
    trains = ("screening_prior",)
    needs = frozenset({"ecg", "labels"})
    decomposes = False
    primary = "diseases"
    higher_is_better = True
    counts: ClassVar[Counts] = {
        "known": CELL,
        "positive": Count("cell", within="known"),
        "subtypes": CELL,
        "people_known": CELL,
        "people_positive": Count("cell", within="people_known"),
    }

    private_bounds: ClassVar[Mapping[str, float]] = {
        "known": len(DISEASES) ** 0.5,
        "positive": len(DISEASES) ** 0.5,
        "subtypes": 1.0,
    }

    def repair(self, sums: Sums) -> Sums:
        """No count below 0, and none with a disease beyond those of whom it is known."""
        known = np.maximum(sums["known"], 0.0)
        return {
            "known": known,
            "positive": np.clip(sums["positive"], 0.0, known),
            "subtypes": np.maximum(sums["subtypes"], 0.0),
        }

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """``known``, ``positive`` [D] and ``subtypes`` [C] of the training rows."""
        return _counts(site, site.rows(self.needs, "train"))

    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``logit`` [D] and ``log_share`` [C], with half a case added to each class."""
        return {
            "logit": prevalence_log_odds(sums).astype(np.float32),
            "log_share": subtype_log_shares(sums).astype(np.float32),
        }

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """The same counts of a split, and ``people_known``, ``people_positive`` [D]."""
        cohort, rows = site.cohort, site.rows(self.needs, split)
        label_RD = _labels(site, rows)

        def people(present_RD: np.ndarray) -> np.ndarray:
            everyone = np.zeros(len(rows), dtype=np.int64)
            found = people_by_cell(
                everyone, groups=1, patient_R=cohort.row_patient[rows], present_RK=present_RD
            )
            return found[0].astype(np.float64)

        return {
            **count_sums(cohort, rows),
            **_counts(site, rows),
            "people_known": people(~np.isnan(label_RD)),
            "people_positive": people(label_RD == 1),
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Prevalence of each disease over rows and over people, share of each subtype.

        ``prevalence/cad`` (rows), ``prevalence_people/cad``, ``known/cad``, ``subtype_share/dcm``, and
        ``diseases``, the number of those of which both ill and healthy rows are known.
        """
        known, positive = sums["known"], sums["positive"]
        found = {
            "n_rows": float(sums["n_rows"][0]),
            "n_patients": float(sums["n_patients"][0]),
        }
        if not known.any():
            return found
        found["diseases"] = float(((positive > 0) & (positive < known)).sum())
        for place, disease in enumerate(DISEASES):
            if known[place] > 0:
                found[f"known/{disease}"] = float(known[place])
                found[f"prevalence/{disease}"] = float(positive[place] / known[place])
                people = sums["people_positive"][place] / sums["people_known"][place]
                found[f"prevalence_people/{disease}"] = float(people)
        total = float(sums["subtypes"].sum())
        if total > 0:
            for name, count in zip(SUBTYPES, sums["subtypes"], strict=True):
                found[f"subtype_share/{name}"] = float(count / total)
        return found


def _labels(site: SiteView, rows: np.ndarray) -> np.ndarray:
    """Labels of the diseases [R, D], but of those of which few people are ill or well."""
    return without_small_classes(
        site.cohort.diseases[rows, : len(DISEASES)],
        patient_R=site.cohort.row_patient[rows],
        minimum=site.smallest_cell,
    )


def _counts(site: SiteView, rows: np.ndarray) -> Sums:
    subtype_RC = without_small_subtypes(
        site.cohort.diseases[rows, len(DISEASES) :],
        patient_R=site.cohort.row_patient[rows],
        minimum=site.smallest_cell,
    )
    index_R = subtype_index(subtype_RC)
    return {
        **prevalence_sums(_labels(site, rows)),
        **subtype_sums(index_R, classes=len(SUBTYPES)),
    }
