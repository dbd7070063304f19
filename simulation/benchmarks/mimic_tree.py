"""A MIMIC-IV-ECG tree of any size for the benchmarks, with the site document that reads it.

Comes in: a folder and numbers. Goes out: ``record_list.csv``, a header and a format 16 signal file of 12 x
5000 a study, ``site.yaml``. Signals are drawn hearts in sinus rhythm; one in 77 has a run of missing samples,
as in the real set (FORMATS section 4). Of a subject with several studies, all share one signal file by hard
links, so that a large tree costs no more disk than a small one; reading it costs the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from simulation.electrocardiogram import draw_ecg
from simulation.hearts import draw_heart
from simulation.machines import Cart
from simulation.scenario import DrawnHospital
from simulation.writers.layout import write_csv
from simulation.writers.mimic_iv_ecg import GAIN_PER_MV, LEAD_ORDER
from simulation.writers.site_document import site_document, write_site
from simulation.writers.wfdb_files import write_record

_COLUMNS = ("subject_id", "study_id", "file_name", "ecg_time", "path")
_MISSING_EVERY = 77


def make_tree(folder: Path, *, subjects: int, studies: int = 1, seed: int = 0) -> Path:
    """Write a tree of ``subjects * studies`` records.

    Args:
        folder: where; made if absent.
        subjects: people, each with a signal of their own.
        studies: records of each.
        seed: of the signals.

    Returns:
        The ``site.yaml``.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(subjects):
        subject = 90_000_011 + 11 * number
        first: Path | None = None
        for study in range(49_000_000 + studies * number, 49_000_000 + studies * (number + 1)):
            stem = Path("files") / f"p{subject // 10_000}" / f"p{subject}" / f"s{study}" / str(study)
            path = folder / stem
            path.parent.mkdir(parents=True)
            if first is None:
                _write_signal(path, rng, missing=number % _MISSING_EVERY == 0)
                first = path
            else:
                _write_again(path, first)
            rows.append(
                {
                    "subject_id": subject,
                    "study_id": study,
                    "file_name": study,
                    "ecg_time": "2150-01-01 10:00:00",
                    "path": stem.as_posix(),
                }
            )
    write_csv(folder / "record_list.csv", _COLUMNS, rows)
    hospital = DrawnHospital(site="bench", layout="mimic_iv_ecg", patients=subjects)
    source = {"kind": "mimic_iv_ecg", "root": "."}
    write_site(folder / "site.yaml", site_document(hospital, source=source, phases=("ecg_mae",)))
    return folder / "site.yaml"


def _write_signal(path: Path, rng: np.random.Generator, *, missing: bool) -> None:
    record = draw_ecg(draw_heart(rng, prevalence={}, mean_age=64), Cart(), rng)
    signal = record.signal_mv[[record.leads.index(lead) for lead in LEAD_ORDER]]
    if missing:
        begin = int(rng.integers(0, 4000))
        signal[int(rng.integers(12)), begin : begin + 200] = np.nan
    write_record(
        path, signal, rate_hz=500, leads=LEAD_ORDER, gain_per_mv=GAIN_PER_MV, clock="10:00:00 01/01/2150"
    )


def _write_again(path: Path, first: Path) -> None:
    header = first.with_suffix(".hea").read_text(encoding="utf-8")
    path.with_suffix(".hea").write_text(header.replace(first.name, path.name), encoding="utf-8")
    os.link(first.with_suffix(".dat"), path.with_suffix(".dat"))
