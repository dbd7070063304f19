"""A MIMIC-IV-ECG tree (FORMATS section 4), ECG only, with the defects that the real one has.

aVF stands before aVL; NaN runs, one all-zero lead, one listed file that is absent; sentinels for numbers;
diagnoses as Python lists in text, ``[]`` where none was recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from simulation.diagnoses import codes_of
from simulation.patients import Patient
from simulation.scenario import DrawnHospital
from simulation.waves import intervals_of
from simulation.writers.layout import OF_LABELS, Layout, Rows, without, write_csv
from simulation.writers.wfdb_files import write_record

LEAD_ORDER = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
GAIN_PER_MV = 200
ABSENT_FILE, ZERO_LEAD = 4, 9
"""Patients whose first record lacks its .dat, and has an all-zero lead."""

_REPORTS = tuple(f"report_{number}" for number in range(18))
_RECORD_LIST = ("subject_id", "study_id", "file_name", "ecg_time", "path")
_MEASURES = (
    "rr_interval",
    "p_onset",
    "p_end",
    "qrs_onset",
    "qrs_end",
    "t_end",
    "p_axis",
    "qrs_axis",
    "t_axis",
)
_MACHINE = ("subject_id", "study_id", "cart_id", "ecg_time", *_REPORTS, "bandwidth", "filtering", *_MEASURES)
_DIAGNOSES = (
    "file_name", "study_id", "subject_id", "ecg_time", "ed_stay_id", "ed_hadm_id", "hosp_hadm_id",
    "ed_diag_ed", "ed_diag_hosp", "hosp_diag_hosp", "all_diag_hosp", "all_diag_all", "gender", "age",
    "anchor_year", "anchor_age", "dod", "ecg_no_within_stay", "ecg_taken_in_ed", "ecg_taken_in_hosp",
    "ecg_taken_in_ed_or_hosp", "fold", "strat_fold",
)  # fmt: skip
_PREFIX = "mimic-iv-ecg-diagnostic-electrocardiogram-matched-subset-1.0/"


def subject_of(index: int) -> int:
    """The invented subject_id of a patient: 8 digits that begin with 9."""
    return 90_000_011 + 3301 * index


def write_patient(folder: Path, patient: Patient, hospital: DrawnHospital) -> Rows:
    """Write the records of one subject; returns rows of the three tables."""
    rng = patient.table_rng()
    subject = subject_of(patient.index)
    when = datetime(2100, 1, 1) + timedelta(minutes=int(rng.integers(0, 90 * 365 * 24 * 60)))
    codes = [code.replace(".", "") for code in codes_of(patient.coded, rng)]
    if patient.visits[0].heart.diseases == frozenset() and rng.random() < 0.25:
        codes = []
    rows: Rows = {"record_list": [], "machine_measurements": [], "diagnoses": []}
    for visit in patient.visits:
        if visit.ecg is None:
            continue
        study = 49_000_000 + 16 * patient.index + visit.number
        stem = Path("files") / f"p{subject // 10_000}" / f"p{subject}" / f"s{study}" / str(study)
        when += timedelta(minutes=int(rng.integers(60, 400 * 24 * 60)))
        order = [visit.ecg.leads.index(lead) for lead in LEAD_ORDER]
        signal = visit.ecg.signal_mv[order].copy()
        _spoil(signal, rng, patient=patient.index, visit=visit.number)
        (folder / stem).parent.mkdir(parents=True, exist_ok=True)
        write_record(
            folder / stem, signal, rate_hz=500, leads=LEAD_ORDER, gain_per_mv=GAIN_PER_MV,
            clock=f"{when:%H:%M:%S %d/%m/%Y}", comments=(f"<subject_id>: {subject}",),
        )  # fmt: skip
        if patient.index == ABSENT_FILE and visit.number == 0:
            (folder / stem).with_name(f"{study}.dat").unlink()
        common = {"subject_id": subject, "study_id": study, "ecg_time": f"{when:%Y-%m-%d %H:%M:%S}"}
        rows["record_list"].append(common | {"file_name": str(study), "path": stem.as_posix()})
        rows["machine_measurements"].append(common | _machine(visit.heart, rng))
        listed = str(codes)
        rows["diagnoses"].append(
            common
            | {"file_name": _PREFIX + stem.as_posix(), "hosp_diag_hosp": listed, "all_diag_hosp": listed}
            | {
                "ed_diag_ed": "[]",
                "ed_diag_hosp": "[]",
                "all_diag_all": listed,
                "age": int(visit.heart.age_years),
            }
            | {"gender": "missing" if rng.random() < 0.02 else visit.heart.sex[0].upper()}
            | {"anchor_year": when.year, "anchor_age": min(91, int(visit.heart.age_years))}
            | {"ecg_no_within_stay": -1, "ecg_taken_in_ed": False, "ecg_taken_in_hosp": bool(codes)}
            | {
                "ecg_taken_in_ed_or_hosp": bool(codes),
                "fold": patient.index % 20,
                "strat_fold": patient.index % 20,
            }
        )
    return rows


def write_tables(folder: Path, rows: Rows) -> None:
    """Write RECORDS and the tables."""
    records = rows.get("record_list", [])
    (folder / "RECORDS").write_text("".join(f"{row['path']}\n" for row in records), encoding="utf-8")
    write_csv(folder / "record_list.csv", _RECORD_LIST, records)
    write_csv(folder / "machine_measurements.csv", _MACHINE, rows.get("machine_measurements", []))
    write_csv(folder / "records_w_diag_icd10.csv", _DIAGNOSES, rows.get("diagnoses", []))


def _spoil(signal: np.ndarray, rng: np.random.Generator, *, patient: int, visit: int) -> None:
    """Put NaN runs into some records, and zeros into one lead of one."""
    chance, lead, start, length = rng.random(4)
    if chance < 0.04:
        first = int(start * signal.shape[1] * 0.8)
        signal[int(lead * 12), first : first + 10 + int(length * 300)] = np.nan
    if patient == ZERO_LEAD and visit == 0:
        signal[LEAD_ORDER.index("V3")] = 0.0


def _machine(heart: Any, rng: np.random.Generator) -> dict[str, Any]:
    """The cart's own measurements; a few are sentinels instead of numbers."""
    interval = intervals_of(heart)
    p_onset, axis = 40, round(heart.axis_degrees)
    qrs_onset = p_onset + round(interval.pq_ms)
    values: dict[str, Any] = {
        "cart_id": 6_848_000 + int(rng.integers(0, 40)),
        "report_0": "Sinus rhythm" if rng.random() < 0.95 else "*** Suspect unspecified pacemaker failure",
        "report_1": "Abnormal ECG" if heart.diseases else "Normal ECG",
        "bandwidth": "0.005-150 Hz",
        "filtering": "60 Hz notch Baseline filter",
        "rr_interval": round(interval.rr_ms),
        "p_onset": p_onset,
        "p_end": p_onset + round(interval.p_ms),
        "qrs_onset": qrs_onset,
        "qrs_end": qrs_onset + round(interval.qrs_ms),
        "t_end": qrs_onset + round(interval.qt_ms),
        "p_axis": 55,
        "qrs_axis": axis,
        "t_axis": 45,
    }
    for chance, name, sentinel in zip(
        rng.random(4),
        ("p_onset", "p_axis", "t_axis", "rr_interval"),
        (29999, 32767, -32768, 65535),
        strict=True,
    ):
        if chance < 0.04:
            values[name] = sentinel
    return values


def _source(hospital: DrawnHospital) -> dict[str, Any]:
    source = {"kind": "mimic_iv_ecg", "root": ".", "diagnoses": "records_w_diag_icd10.csv"}
    return without(source, hospital, {"labels": ("diagnoses",)})


LAYOUT = Layout(phases=OF_LABELS, source=_source, write_patient=write_patient, write_tables=write_tables)
