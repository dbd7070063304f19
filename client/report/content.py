"""What the quality report says, as numbers and sentences (after step 4 of the walk).

Comes in: the record table and the rows of a prepared cache, its manifest. Goes out: one JSON-ready dict that
holds counts and sizes only: no pseudonym, no file, nothing of any one person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cardionets_core.config.local_site import DiagnosisTable
from cardionets_core.config.site import LocalSource, SourceConfig
from cardionets_core.data.amplitude import gain_suspect
from cardionets_core.data.cache import summary
from cardionets_core.data.cohort import SEXES, SPLITS, Cohort
from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.records import LABELS
from cardionets_core.errors import REFUSAL_REASONS
from client.report.histograms import Histogram, histogram
from client.report.unusable import mostly_left_out
from client.wording import LEAD_DOUBTS, disease_title, flag_words, lead_doubt_words, warning_words

SCHEMA_VERSION = 1
KINDS = ("ecg", "cine")
_MANY = 5
"""ECGs with one doubt from which on it may tell of the site and not of people."""
_SEX_LETTERS = {"female": "F", "male": "M"}

Table = Mapping[str, Sequence[Any]]
"""Column to one value a recording, refused ones included: kind, accepted, reason, flags (names), facts."""


def histograms_of(table: Table, cohort: Cohort) -> dict[str, Histogram]:
    """Rate, duration, amplitude of the ECGs; age of the people."""
    is_ecg = np.array([kind == "ecg" for kind in table["kind"]], dtype=bool)
    read = is_ecg & np.array([reason != "withdrawn" for reason in table["reason"]], dtype=bool)

    def column(name: str) -> np.ndarray:
        values = table.get(name, [None] * len(table["kind"]))
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        return numbers[read]

    return {
        "rate_hz": histogram(column("fs_hz"), title="sampling rate of the ECGs", unit="Hz"),
        "duration_s": histogram(column("duration_s"), title="duration of the ECGs", unit="s"),
        "amplitude_mv": histogram(
            column("amplitude_mv"), title="amplitude of the ECGs, peak to peak", unit="mV"
        ),
        "age_years": histogram(_ages(cohort), title="age of the patients", unit="years"),
    }


def report_content(
    *,
    cohort: Cohort,
    table: Table,
    histograms: Mapping[str, Histogram],
    refusals: Mapping[str, int],
    warnings: Mapping[str, int],
    notes: Mapping[str, int],
    codes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All of the report but its pictures.

    Args:
        cohort: the prepared cache.
        table: a row a recording.
        histograms: from ``histograms_of``.
        refusals: reason to number, those that the source left out before reading included.
        warnings: name to number, of the manifest.
        notes: doubt of the tables to number of rows.
        codes: disease or subtype to the codes that the site declares for it, see ``declared_codes``.
    """
    splits = summary(cohort)
    return {
        "schema_version": SCHEMA_VERSION,
        "site": cohort.site,
        "cache_digest": cohort.digest,
        "recordings": _outcomes(table),
        "patients": cohort.patients(np.arange(len(cohort.row_patient))),
        "left_out": _left_out(table, refusals),
        "flags": _flags(table),
        "warnings": mostly_left_out(table, refusals) + _mostly_doubted(table) + _warnings(table, warnings),
        "notes": dict(sorted(notes.items())),
        "histograms": {name: found.to_json() for name, found in histograms.items()},
        "splits": {name: splits[name] for name in SPLITS},
        "sex": _sexes(cohort),
        "diseases": _diseases(cohort, codes or {}),
        "phenotypes": _phenotypes(cohort),
    }


def _outcomes(table: Table) -> dict[str, dict[str, int]]:
    outcomes = {kind: {"listed": 0, "accepted": 0, "flagged": 0} for kind in KINDS}
    for kind, accepted, flags in zip(table["kind"], table["accepted"], table["flags"], strict=True):
        outcome = outcomes[kind]
        outcome["listed"] += 1
        outcome["accepted"] += bool(accepted)
        outcome["flagged"] += bool(accepted and flags)
    return outcomes


def _left_out(table: Table, refusals: Mapping[str, int]) -> list[dict[str, Any]]:
    """Reasons, the most frequent first; those that the table does not hold were left out while listing."""
    reasons = Counter(refusals)
    for reason, count in Counter(reason for reason in table["reason"] if reason).items():
        reasons[reason] = max(reasons[reason], count)
    return [
        {"reason": reason, "count": count, "sentence": REFUSAL_REASONS.get(reason, "")}
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        if count
    ]


def _flags(table: Table) -> list[dict[str, Any]]:
    counts = Counter(
        flag
        for accepted, flags in zip(table["accepted"], table["flags"], strict=True)
        if accepted
        for flag in flags or ()
    )
    return [
        {"flag": flag, "count": count, "sentence": flag_words(flag)}
        for flag, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _mostly_doubted(table: Table) -> list[str]:
    """A sentence for each doubt about the leads that most of the ECGs in use bear, where they are many."""
    used = [
        set(flags or ())
        for kind, accepted, flags in zip(table["kind"], table["accepted"], table["flags"], strict=True)
        if kind == "ecg" and accepted
    ]
    flagged = {flag: sum(flag in flags for flags in used) for flag in LEAD_DOUBTS}
    return [
        lead_doubt_words(flag, flagged=count, used=len(used))
        for flag, count in flagged.items()
        if count >= _MANY and 2 * count > len(used)
    ]


def _warnings(table: Table, warnings: Mapping[str, int]) -> list[str]:
    told = warning_words(warnings)
    amplitudes = [
        value
        for value, accepted in zip(table.get("amplitude_mv", ()), table["accepted"], strict=False)
        if accepted and value is not None
    ]
    suspect = gain_suspect(amplitudes)
    return [*told, suspect[0].upper() + suspect[1:] + "."] if suspect else told


def _of_people(cohort: Cohort, values: np.ndarray) -> np.ndarray:
    """The first known value of each person, NaN where there is none."""
    people, places = np.unique(cohort.row_patient, return_inverse=True)
    found = np.full(len(people), np.nan)
    for place, value in zip(places[::-1], values[::-1], strict=True):
        if np.isfinite(value):
            found[place] = value
    return found


def _ages(cohort: Cohort) -> np.ndarray:
    return _of_people(cohort, np.asarray(cohort.row_age_years, dtype=np.float64))


def _sexes(cohort: Cohort) -> dict[str, int]:
    sex = _of_people(cohort, np.where(cohort.row_sex >= 0, cohort.row_sex, np.nan))
    counts = {name: int((sex == SEXES.index(letter)).sum()) for name, letter in _SEX_LETTERS.items()}
    return {**counts, "unknown": len(sex) - sum(counts.values())}


def declared_codes(source: SourceConfig) -> dict[str, str]:
    """Disease or subtype to the codes that a site declares; empty where a column says who has it."""
    table = source.diagnoses if isinstance(source, LocalSource) else None
    if not isinstance(table, DiagnosisTable):
        return {}
    columns: dict[str, str] = dict.fromkeys(table.flags, "")
    if table.icd10 is None:
        return columns
    own = {str(disease): ", ".join(codes) for disease, codes in table.diseases.items()}
    return columns | own


def _diseases(cohort: Cohort, codes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The five diseases, then the subtypes: known of people of whom exactly one is recorded."""
    found = []
    for place, name in enumerate(LABELS):
        known = _of_people(cohort, cohort.diseases[:, place])
        known = known[np.isfinite(known)]
        positive = int((known > 0).sum())
        found.append(
            {
                "disease": name,
                "title": disease_title(name, codes.get(name)),
                "known": len(known),
                "positive": positive,
                "prevalence": round(positive / len(known), 4) if len(known) else None,
            }
        )
    return found


def _phenotypes(cohort: Cohort) -> dict[str, Any]:
    known = np.isfinite(cohort.phenotypes).sum(axis=0)
    rows = int(np.isfinite(cohort.phenotypes).any(axis=1).sum())
    return {
        "rows": rows,
        "fields": [
            {"field": phenotype.field, "title": phenotype.title, "unit": phenotype.unit, "known": int(count)}
            for phenotype, count in zip(PHENOTYPES, known, strict=True)
        ],
    }
