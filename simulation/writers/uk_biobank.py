"""A UK Biobank download as it lies on a disk (FORMATS sections 1 to 3), for invented participants.

ECG of field 20205 as CardioSoft XML, long-axis CMR of field 20208 and short-axis CMR of field 20209 as
zips, the tables with `24100-2.0` names, diagnoses, and withdrawal lists. Visit 0 is instance 2, visit 1 is
instance 3. The traps of the real thing are in: an older withdrawal list, other series in a zip, an
interrupted series, one XML that is cut off.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion

from simulation.cine import DrawnCine
from simulation.diagnoses import codes_of
from simulation.patients import Patient, Visit
from simulation.scenario import DrawnHospital
from simulation.waves import intervals_of
from simulation.writers.cardiosoft import Sitting, cardiosoft_xml
from simulation.writers.dicom_zip import POSITION_MM, Series, StudyHead, study_zip
from simulation.writers.layout import OF_PAIRS, Layout, Rows, without, write_csv

CUT_OFF, WITHDRAWN = 5, 1
"""Patients whose first XML is cut off in the middle, and who has withdrawn."""

_FIELDS = tuple(range(24100, 24182))
_WANTED, _WANTED_SHORT = "CINE_segmented_LAX_4Ch", "CINE_segmented_SAX_b"
_SHORT_AXIS = (0.6, 0.8, 0.0, 0.48, -0.36, -0.8)
"""Directions of the rows and columns of every slice."""


def eid_of(index: int) -> int:
    """The invented eid of a patient: 7 digits that begin with 9."""
    return 9_000_011 + 7 * index


def write_patient(folder: Path, patient: Patient, hospital: DrawnHospital) -> Rows:
    """Write the XML and zip files of one participant; returns rows of table and diagnoses."""
    rng = patient.table_rng()
    eid = eid_of(patient.index)
    first = patient.visits[0].heart
    codes = ";".join(code.replace(".", "") for code in codes_of(patient.coded, rng))
    row: dict[str, Any] = {"eid": eid, "31-0.0": int(first.sex == "male")}
    when = datetime(2014, 5, 2, 8, 30) + timedelta(minutes=int(rng.integers(0, 5 * 365 * 24 * 60)))
    for visit in patient.visits:
        instance = 2 + visit.number
        row[f"21003-{instance}.0"] = int(visit.heart.age_years)
        row |= {f"{field}-{instance}.0": value for field, value in visit.phenotypes.items()}
        if visit.ecg is not None:
            text = cardiosoft_xml(visit.ecg, _sitting(visit, eid=eid, when=when, rng=rng))
            if patient.index == CUT_OFF and visit.number == 0:
                text = text[: len(text) // 2]
            _write(folder / "20205" / f"{eid}_20205_{instance}_0.xml", text)
        if visit.cine is not None:
            series = _series(visit.cine, rng, patient=patient.index)
            head = _head(visit, when=when, rng=rng)
            _write(folder / "20208" / f"{eid}_20208_{instance}_0.zip", study_zip(series, head, rng))
        if visit.sax is not None:
            own = patient.sax_rng(visit.number)
            content = study_zip(_short_axis(visit.sax), _head(visit, when=when, rng=own), own)
            _write(folder / "20209" / f"{eid}_20209_{instance}_0.zip", content)
        when += timedelta(days=int(rng.integers(600, 1200)))
    return {"table": [row], "diagnoses": [{"eid": eid, "icd10": codes}]}


def write_tables(folder: Path, rows: Rows) -> None:
    """Write the phenotype table, the diagnoses and the withdrawal lists."""
    columns = ["eid", "31-0.0", "21003-2.0", "21003-3.0"]
    columns += [f"{field}-{instance}.0" for field in _FIELDS for instance in (2, 3)]
    write_csv(folder / "phenotypes.csv", columns, rows.get("table", []))
    write_csv(folder / "diagnoses.csv", ("eid", "icd10"), rows.get("diagnoses", []))
    lists = folder / "withdrawals"
    _write(lists / "w99001_20220222.csv", b"9999990\n")
    _write(lists / "w99001_20230425.csv", f"{eid_of(WITHDRAWN)}\n9999999\n".encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _sitting(visit: Visit, *, eid: int, when: datetime, rng: np.random.Generator) -> Sitting:
    """The machine's measurements; some carts leave most of them empty."""
    interval = intervals_of(visit.heart)
    corrected = interval.qt_ms / np.sqrt(interval.rr_ms / 1000.0)
    values = {
        "VentricularRate": visit.heart.heart_rate_bpm,
        "RRInterval": interval.rr_ms,
        "PPInterval": interval.rr_ms,
        "PQInterval": interval.pq_ms,
        "PDuration": interval.p_ms,
        "QRSDuration": interval.qrs_ms,
        "QTInterval": interval.qt_ms,
        "QTCInterval": corrected,
        "RAxis": visit.heart.axis_degrees,
    }
    dropped = {"PQInterval", "PDuration", "QTCInterval", "RAxis"} if rng.random() < 0.2 else set()
    if rng.random() < 0.03:
        dropped = set(values)
    return Sitting(
        patient_id=str(eid),
        when=when,
        measurements={name: round(value) for name, value in values.items() if name not in dropped},
        diagnosis=("Normal sinus rhythm", "Abnormal ECG" if visit.heart.diseases else "Normal ECG"),
    )


def _head(visit: Visit, *, when: datetime, rng: np.random.Generator) -> StudyHead:
    return StudyHead(
        patient=str(int(rng.integers(10**6, 9 * 10**6))),
        date=f"{when:%Y%m%d}",
        date_in_words=f"{when:%b %d, %Y %H:%M:%S}",
        heart_rate_bpm=round(visit.heart.heart_rate_bpm),
    )


def _short_axis(cine: DrawnCine) -> tuple[Series, ...]:
    """A series a slice, from the base on, which lies first along the slices' normal."""
    pixels = cine.stack.pixels.astype(np.uint16)
    normal = np.cross(_SHORT_AXIS[:3], _SHORT_AXIS[3:])
    step_mm = float(cine.stack.slice_spacing_mm or 0.0)
    return tuple(
        Series(
            description=f"{_WANTED_SHORT}{place + 1}",
            number=20 + place,
            pixels=pixels[:, place],
            spacing_mm=cine.stack.spacing_mm,
            frame_ms=float(cine.stack.frame_ms or 0.0),
            phases=len(pixels),
            position_mm=tuple(round(float(x), 4) for x in np.array(POSITION_MM) + place * step_mm * normal),
            orientation=_SHORT_AXIS,
        )
        for place in range(pixels.shape[1])
    )


def _series(cine: DrawnCine, rng: np.random.Generator, *, patient: int) -> tuple[Series, ...]:
    """The wanted series, and what else lies in some zips."""
    pixels = cine.stack.pixels.astype(np.uint16)
    frames = len(pixels)
    spacing, frame_ms = cine.stack.spacing_mm, float(cine.stack.frame_ms or 0.0)

    def series(description: str, number: int, content: np.ndarray, *, phases: int = frames) -> Series:
        return Series(
            description=description,
            number=number,
            pixels=content,
            spacing_mm=spacing,
            frame_ms=frame_ms * frames / phases,
            phases=phases,
        )

    found: list[Series] = []
    if patient % 6 == 2:
        corner = pixels[:: max(1, frames // 4), ::2, ::2][:4, :, ::-1]
        found.append(series("CINE_segmented_LAX_2Ch", 9, corner, phases=4))
    if patient % 17 == 7:
        # The patient breathed: the scan was broken off and repeated.
        found.append(series(_WANTED, 11, pixels[: frames // 4, ::-1]))
    found.append(series(_WANTED, 12, pixels))
    if patient % 13 == 4:
        burnt = pixels[:: max(1, frames // 3)][:3].copy()
        inside = cine.masks[:: max(1, frames // 3)][:3] == 1
        burnt[inside & ~binary_erosion(inside, np.ones((1, 3, 3)))] = 4095
        found.append(series("CINE_segmented_LAX_InlineVF", 13, burnt, phases=3))
    return tuple(found)


def _source(hospital: DrawnHospital) -> dict[str, Any]:
    folders = [folder for view, folder in (("4ch", "20208"), ("sax", "20209")) if view in hospital.views]
    source = {
        "kind": "uk_biobank",
        "ecg": "20205",
        "cmr": folders if len(folders) > 1 else folders[0],
        "table": "phenotypes.csv",
        "diagnoses": "diagnoses.csv",
        "withdrawals": "withdrawals",
    }
    # The table stays without phenotypes: it also holds age and sex.
    return without(source, hospital, {"cmr": ("cmr",), "labels": ("diagnoses",)})


LAYOUT = Layout(
    phases=OF_PAIRS,
    source=_source,
    write_patient=write_patient,
    write_tables=write_tables,
)
