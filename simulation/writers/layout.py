"""What a writer offers: the files of one patient, and the tables of the whole hospital.

A patient's files are written by a worker process; the rows that it returns are plain values, and the tables
are written from the rows of all patients in their order. So the bytes do not depend on the workers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulation.patients import Patient
from simulation.scenario import DrawnHospital

Rows = dict[str, list[dict[str, Any]]]
"""Name of a table to rows."""

OF_SIGNALS: tuple[str, ...] = ("ecg_mae",)
"""Phases that ECGs alone can serve."""
OF_LABELS: tuple[str, ...] = (
    *OF_SIGNALS, "align", "prevalence", "logistic", "screening", "calibrate", "fuse",
)  # fmt: skip
"""Phases that ECGs with diagnoses can serve; in align such a site trains the ECG's encoder only."""
OF_PAIRS: tuple[str, ...] = (
    "ecg_mae", "cmr_mae", "align", "probe", "standardise", "prevalence", "logistic", "principal", "tokenizer",
    "generate", "phenotype", "screening", "calibrate", "fuse", "memorisation",
)  # fmt: skip
"""Phases that pairs with phenotypes and diagnoses can serve: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One on-disk layout.

    Attributes:
        phases: what a hospital with such files can serve if it lacks nothing, for its policy.
        source: the ``source`` part of ``site.yaml``.
        write_patient: writes the files of one patient into the hospital's folder; returns its rows.
        write_tables: writes the tables from all rows.
    """

    phases: tuple[str, ...]
    source: Callable[[DrawnHospital], dict[str, Any]]
    write_patient: Callable[[Path, Patient, DrawnHospital], Rows]
    write_tables: Callable[[Path, Rows], None]


def without(
    source: dict[str, Any], hospital: DrawnHospital, keys: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The ``source`` part without the keys of what the hospital lacks.

    Args:
        source: of a hospital that has everything.
        hospital: says what it lacks.
        keys: what may be lacking to the keys that go with it.
    """
    gone = {key for lack in hospital.lacks for key in keys.get(lack, ())}
    return {key: value for key, value in source.items() if key not in gone}


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table; an absent or None value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row.get(column) is None else row[column] for column in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")
