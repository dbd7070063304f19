"""A hospital's own export: ECGs as WFDB or CSV, cines as 4-D NIfTI, four tables (FORMATS sections 5 and 6).

Each view has a folder of its own; a visit with both views has two rows in the index.

One ECG file of each hospital is cut off in the middle, so that a refusal has to be counted.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from cardionets_core.data.records import CineStack, EcgRecord
from simulation.diagnoses import codes_of
from simulation.patients import Patient
from simulation.scenario import DrawnHospital
from simulation.writers.layout import OF_PAIRS, Layout, Rows, without, write_csv
from simulation.writers.wfdb_files import write_record

GAIN_PER_MV = 1000
TRUNCATED = 3
"""The patient whose first ECG file is cut off."""

_FIELDS = tuple(range(24100, 24182))


def name_of(site: str, index: int) -> str:
    """The hospital's identifier of a patient: the site's first letter and 6 digits."""
    return f"{site[0].upper()}{10_007 + 13 * index:06d}"


def write_patient(folder: Path, patient: Patient, hospital: DrawnHospital) -> Rows:
    """Write the ECGs and cines of one patient; returns rows of the tables."""
    rng = patient.table_rng()
    name = name_of(hospital.site, patient.index)
    codes = codes_of(patient.coded, rng)
    rows: Rows = {"index": [], "phenotypes": [], "people": []}
    rows["diagnoses"] = [{"patient": name, "icd10": ";".join(codes)}]
    for visit in patient.visits:
        number = visit.number + 1
        row: dict[str, Any] = {"patient": name, "visit": number}
        if visit.ecg is not None:
            cut = patient.index == TRUNCATED and visit.number == 0
            row["ecg"] = _write_ecg(
                folder / "ecg", f"{name}_{number}", visit.ecg, layout=hospital.layout, cut=cut
            )
        if visit.cine is not None:
            row["cine"] = f"{name}_{number}.nii.gz"
            write_nifti(folder / "cmr" / row["cine"], visit.cine.stack)
        rows["index"].append(row)
        if visit.sax is not None:
            short = f"{name}_{number}_sax.nii.gz"
            write_nifti(folder / "sax" / short, visit.sax.stack)
            if visit.cine is None:
                row["cine"] = short
            else:
                rows["index"].append({"patient": name, "visit": number, "cine": short})
        heart = visit.heart
        who = {"age": int(heart.age_years), "sex": heart.sex[0].upper()}
        rows["people"].append({"patient": name, "visit": number} | who)
        values = {f"f{field}": value for field, value in visit.phenotypes.items()}
        if values:
            rows["phenotypes"].append({"patient": name, "visit": number} | values)
    return rows


def write_tables(folder: Path, rows: Rows) -> None:
    """Write index.csv, phenotypes.csv, diagnoses.csv and people.csv."""
    write_csv(folder / "index.csv", ("patient", "visit", "ecg", "cine"), rows.get("index", []))
    columns = ("patient", "visit", *(f"f{field}" for field in _FIELDS))
    write_csv(folder / "phenotypes.csv", columns, rows.get("phenotypes", []))
    write_csv(folder / "diagnoses.csv", ("patient", "icd10"), rows.get("diagnoses", []))
    write_csv(folder / "people.csv", ("patient", "visit", "age", "sex"), rows.get("people", []))


def write_nifti(path: Path, stack: CineStack) -> None:
    """Write a cine as int16 (X, Y, Z, F), voxel size and frame time in pixdim; the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slices = stack.pixels if stack.pixels.ndim == 4 else stack.pixels[:, None]
    array = np.ascontiguousarray(slices.transpose(3, 2, 1, 0).astype(np.int16))
    row_mm, column_mm = stack.spacing_mm
    slice_mm = stack.slice_spacing_mm or 8.0
    image = nibabel.nifti1.Nifti1Image(array, np.diag([-column_mm, -row_mm, slice_mm, 1.0]))
    image.header.set_zooms((column_mm, row_mm, slice_mm, stack.frame_ms or 0.0))
    image.header.set_xyzt_units("mm", "msec")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def csv_text(record: EcgRecord) -> str:
    """A CSV of whole microvolts: a line of lead names, then a line a sample."""
    counts = np.rint(record.signal_mv.T * 1000.0).astype(int).tolist()
    lines = [",".join(record.leads)]
    lines += [",".join(map(str, sample)) for sample in counts]
    return "\n".join(lines) + "\n"


def _write_ecg(folder: Path, stem: str, record: EcgRecord, *, layout: str, cut: bool) -> str:
    """Write one ECG; returns the name that the index gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "local_csv":
        text = csv_text(record)
        # A copy that broke off in the middle of a line, after less than 5 s.
        (folder / f"{stem}.csv").write_text(text[: int(0.3 * len(text))] if cut else text, encoding="utf-8")
        return f"{stem}.csv"
    write_record(
        folder / stem,
        record.signal_mv,
        rate_hz=round(record.fs_hz),
        leads=record.leads,
        gain_per_mv=GAIN_PER_MV,
    )
    if cut:
        data = folder / f"{stem}.dat"
        data.write_bytes(data.read_bytes()[: 12 * 2 * 1111 + 7])
    return f"{stem}.hea"


def _source(hospital: DrawnHospital) -> dict[str, Any]:
    ecg: dict[str, Any] = {"format": "wfdb", "folder": "ecg"}
    if hospital.layout == "local_csv":
        ecg = {"format": "csv", "folder": "ecg", "rate_hz": hospital.cart.rate_hz, "unit": "uV"}
    folders = {"4ch": "cmr", "sax": "sax"}
    cines = [
        {"format": "nifti", "folder": folder, "view": view}
        for view, folder in folders.items()
        if view in hospital.views
    ]
    source = {
        "kind": "local_site",
        "ecg": ecg,
        "cmr": cines if len(cines) > 1 else cines[0],
        "index": "index.csv",
        "phenotypes": "phenotypes.csv",
        "diagnoses": "diagnoses.csv",
        "people": {
            "table": "people.csv",
            "visit": "visit",
            "age": "age",
            "sex": {"column": "sex", "female": ["F"], "male": ["M"]},
        },
    }
    lacking = {"cmr": ("cmr",), "labels": ("diagnoses",), "phenotypes": ("phenotypes",)}
    return without(source, hospital, lacking)


LAYOUT = Layout(
    phases=OF_PAIRS,
    source=_source,
    write_patient=write_patient,
    write_tables=write_tables,
)
