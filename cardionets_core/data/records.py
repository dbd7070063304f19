"""The types that a record wears on its way: what readers give, and what sources list.

Step 2 of the walk. Nothing here reads a file.

Legend: L leads, T samples, F cine frames, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
DISEASES: tuple[str, ...] = ("cad", "cm", "hf", "pc", "ph")


@dataclass(frozen=True, slots=True, kw_only=True)
class EcgRecord:
    """One resting ECG.

    Attributes:
        signal_mv: float32 [L, T], millivolts; NaN where the file says that a sample is missing.
        fs_hz: samples per second.
        leads: L names in the order of the rows, spelt as in ``LEADS`` where they are of the twelve.
    """

    signal_mv: np.ndarray
    fs_hz: float
    leads: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CineStack:
    """One cine.

    Attributes:
        pixels: float32 [F, Y, X], scanner units.
        spacing_mm: (row spacing, column spacing) in millimetres.
        frame_ms: time between frames, or None where the file does not say.
        view: ``4ch`` is the only view that this version reads.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float]
    frame_ms: float | None = None
    view: str = "4ch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One file of one person as a source lists it, before anything is read.

    ``patient`` and ``path`` are the hospital's own identifiers. They stay in this process: the cache,
    the journal and the wire know only the pseudonym.

    Attributes:
        patient: the hospital's identifier of the person.
        visit: ECG and cine with the same patient and visit are a pair.
        kind: ``ecg`` or ``cine``.
        path: the file or archive.
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
        diseases: name of ``DISEASES`` to 1.0, 0.0; absent = not assessed.
    """

    phenotypes: dict[int, float] = field(default_factory=dict)
    diseases: dict[str, float] = field(default_factory=dict)
