"""The types that a record wears on its way: what readers give, and what sources list.

Step 2 of the walk. Nothing here reads a file.

Legend: L leads, T samples, F cine frames, Z slices, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
DISEASES: tuple[str, ...] = ("cad", "cm", "hf", "pc", "ph")
SUBTYPES: tuple[str, ...] = ("rcm", "dcm", "hcm")
"""Of cardiomyopathy (``cm``): restrictive, dilated, hypertrophic."""
LABELS: tuple[str, ...] = DISEASES + SUBTYPES
LABEL_TITLES: dict[str, str] = {
    "cad": "coronary artery disease",
    "cm": "cardiomyopathy",
    "hf": "heart failure",
    "pc": "pericardial disease",
    "ph": "pulmonary hypertension",
    "rcm": "restrictive cardiomyopathy",
    "dcm": "dilated cardiomyopathy",
    "hcm": "hypertrophic cardiomyopathy",
}
"""What people read of ``LABELS``."""
VIEWS: tuple[str, ...] = ("4ch", "2ch", "3ch", "sax")
SAX_FIELD_PIXELS = 80
"""Side of a short axis's window: the middle of what is kept of it, see ``cine.py``."""

View = Literal["4ch", "2ch", "3ch", "sax", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EcgRecord:
    """One resting ECG.

    Attributes:
        signal_mv: float32 [L, T], millivolts; NaN where the file says that a sample is missing.
        fs_hz: samples per second.
        leads: L names in the order of the rows, spelt as in ``LEADS`` where they are of the twelve.
        flags: what the reader repaired by a documented rule, ``calibration-cropped`` for one.
    """

    signal_mv: np.ndarray
    fs_hz: float
    leads: tuple[str, ...]
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CineStack:
    """One cine of one view: frames in the order of time, slices in the order of position.

    Attributes:
        pixels: float32 [F, Y, X], or [F, Z, Y, X] for a stack of slices; scanner units.
        spacing_mm: (between rows, between columns) in millimetres.
        slice_spacing_mm: between neighbouring slices along their normal; None for one slice.
        frame_ms: time between frames, or None where the file does not say.
        view: one of ``VIEWS``, or ``unknown`` where neither name nor geometry tells.
        ed_frame: index of end-diastole from 0, None where unknown.
        es_frame: index of end-systole from 0, None where unknown.
        phase_source: ``given`` (the file or a sidecar names ED and ES), ``heuristic``, or empty.
        mask: uint8 like ``pixels``: 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity; frames without a
            segmentation are 0 throughout. None where there is none at all.
        flags: what the reader repaired or guessed by a documented rule, ``series-repeated`` for one.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float | None = None
    frame_ms: float | None = None
    view: View = "4ch"
    ed_frame: int | None = None
    es_frame: int | None = None
    phase_source: str = ""
    mask: np.ndarray | None = None
    flags: frozenset[str] = frozenset()


Read = EcgRecord | tuple[CineStack, ...]
"""What one recording gives: an ECG, or the cines of a study, one a view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One file of one person as a source lists it, before anything is read.

    ``patient`` and ``path`` are the hospital's own identifiers. They stay in this process: the cache,
    the journal and the wire know only the pseudonym.

    Attributes:
        patient: the hospital's identifier of the person.
        visit: ECG and cine with the same patient and visit are a pair.
        kind: ``ecg`` or ``cine``.
        path: the file, archive or folder.
    """

    patient: str
    visit: str
    kind: Literal["ecg", "cine"]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What the tables say of one visit of one person; all of it may be missing.

    Attributes:
        phenotypes: field number (24100 to 24181) to value in the unit of the field.
        diseases: name of ``DISEASES`` to 1.0, 0.0; absent = not assessed. The three of ``SUBTYPES`` stand
            there together, one of them 1.0 and two 0.0, or are all absent = not known.
        age_years: at the visit.
        sex: ``F`` or ``M``; None where unknown or otherwise recorded.
    """

    phenotypes: dict[int, float] = field(default_factory=dict)
    diseases: dict[str, float] = field(default_factory=dict)
    age_years: float | None = None
    sex: Literal["F", "M"] | None = None
