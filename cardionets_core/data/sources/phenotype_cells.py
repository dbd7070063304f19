"""Cells of a table to phenotypes (step 2 of the walk): numbers in the unit of the field, NaN where missing.

A value outside the bounds of its field is no measurement: it becomes NaN and is counted. Where that happens
to most of a column, the declared unit is wrong, and the table is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cardionets_core.data.phenotypes import FIELDS, FIRST_FIELD, HIGHEST, LOWEST, PHENOTYPES
from cardionets_core.data.sources.tables import Columns
from cardionets_core.errors import SourceInvalidError

IMPLAUSIBLE = "phenotype-implausible"
FIELD_OF_COLUMN = {
    spelling: phenotype.field
    for phenotype in PHENOTYPES
    for spelling in (f"f{phenotype.field}", str(phenotype.field), phenotype.name)
}
"""The standard names of columns."""

_MISSING = frozenset({"", "na", "nan", "null", "none", "."})
_ENOUGH = 20
"""Values of a column from which its unit can be judged."""


class PhenotypeCells:
    """Turns columns of text into float32 [rows, 82], and keeps count of what it had to leave out."""

    def __init__(self, factors: Mapping[str, tuple[int, float]], *, key: str) -> None:
        """Bind a table.

        Args:
            factors: column to (field, what a value is multiplied by); several columns may name one field.
            key: of the site's document, for errors.
        """
        self._factors = dict(factors)
        self._key = key
        self._seen = np.zeros(len(FIELDS), dtype=np.int64)
        self._left_out = np.zeros(len(FIELDS), dtype=np.int64)

    @property
    def implausible(self) -> int:
        """Values that were left out so far."""
        return int(self._left_out.sum())

    def values(self, piece: Columns) -> np.ndarray:
        """Float32 [rows, 82] of a piece of the table.

        Raises:
            SourceInvalidError: a cell is neither empty nor a number.
        """
        rows = len(next(iter(piece.values()), []))
        table = np.full((rows, len(FIELDS)), np.nan)
        for name, (field, factor) in self._factors.items():
            table[:, field - FIRST_FIELD] = self._numbers(piece[name], field) * factor
        wrong = (table < LOWEST) | (table > HIGHEST)
        self._seen += (~np.isnan(table)).sum(axis=0)
        self._left_out += wrong.sum(axis=0)
        table[wrong] = np.nan
        return table.astype(np.float32)

    def check_units(self) -> None:
        """Refuse a table most of whose values of one field are implausible; for after the last piece.

        Raises:
            SourceInvalidError: names the field.
        """
        mostly = (self._seen >= _ENOUGH) & (2 * self._left_out > self._seen)
        if mostly.any():
            phenotype = PHENOTYPES[int(np.flatnonzero(mostly)[0])]
            raise SourceInvalidError(
                f"most values of field {phenotype.field} ({phenotype.title}) cannot be in {phenotype.unit}",
                where=f"site.yaml: {self._key}",
                remedy="declare the unit that the column really has, or leave the column out",
            )

    def _numbers(self, cells: list[str], field: int) -> np.ndarray:
        try:
            found = np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            found = np.array([self._number(cell, field) for cell in cells])
        found[np.isinf(found)] = np.nan
        return found

    def _number(self, cell: str, field: int) -> float:
        try:
            return math.nan if cell.lower() in _MISSING else float(cell)
        except ValueError:
            raise SourceInvalidError(
                f"a value of field {field} is not a number", where=f"site.yaml: {self._key}",
                remedy="leave missing values empty; write a point before decimals",
            ) from None  # fmt: skip


def phenotype_values(row: np.ndarray | None) -> dict[int, float]:
    """Field number to value, without the missing ones."""
    if row is None:
        return {}
    return {FIELDS[place]: float(row[place]) for place in np.flatnonzero(~np.isnan(row))}
