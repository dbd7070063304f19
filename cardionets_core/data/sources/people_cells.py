"""Cells of a table to age and sex (step 2 of the walk)."""

from __future__ import annotations

from collections import Counter
from typing import Literal

Sex = Literal["F", "M"]

OVER_89 = "age-over-89"
IMPLAUSIBLE = "age-implausible"
_OLDEST = 120.0
_PTBXL_OVER_89 = 300.0


def age_years(cell: str, *, notes: Counter[str]) -> float | None:
    """Age from text; None where empty, no number, or not an age.

    ``300`` is how PTB-XL writes "over 89": it is missing, and counted as such.

    Args:
        cell: the text.
        notes: counts ``age-over-89`` and ``age-implausible``.
    """
    try:
        age = float(cell) if cell else float("nan")
    except ValueError:
        notes[IMPLAUSIBLE] += 1
        return None
    if age != age:
        return None
    if age == _PTBXL_OVER_89:
        notes[OVER_89] += 1
        return None
    if not 0 <= age <= _OLDEST:
        notes[IMPLAUSIBLE] += 1
        return None
    return age


def sex_of(key: str, *, female: frozenset[str], male: frozenset[str]) -> Sex | None:
    """Sex from a cell's key (see ``cell_key``); None where it is neither."""
    return "F" if key in female else "M" if key in male else None
