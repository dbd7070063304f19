"""Reading a site's tables: columns by name, cells as text, nothing guessed (step 2 of the walk)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cardionets_core.data.phenotypes import FIELDS
from cardionets_core.data.sources.base import require_file
from cardionets_core.errors import SourceInvalidError

_ROWS_AT_ONCE = 50_000


def read_table(
    path: Path, *, key: str, columns: tuple[str, ...] = (), keep: Callable[[str], bool] | None = None
) -> Iterator[dict[str, str]]:
    """Rows of a CSV or tab-separated file as text; an empty cell is an empty string.

    Args:
        path: the file; ``.tab``, ``.tsv`` and ``.txt`` are split at tabs.
        key: of the site's document, for errors.
        columns: names that must be there.
        keep: chooses the columns to load; by default ``columns``.

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: it is no table, or lacks a column.
    """
    require_file(path, key=key)
    separator = "\t" if path.suffix.lower() in (".tab", ".tsv", ".txt") else ","
    try:
        names = [
            str(name) for name in pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig").columns
        ]
        missing = [name for name in columns if name not in names]
        if missing:
            raise SourceInvalidError(
                f"the table lacks the column(s) {missing}; it has {len(names)} others",
                where=f"site.yaml: {key}",
                remedy=f"export it with the columns {list(columns)}",
            )
        wanted = [name for name in names if (keep(name) if keep else False) or name in columns]
        with pd.read_csv(
            path,
            sep=separator,
            usecols=wanted,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            encoding="utf-8-sig",
            chunksize=_ROWS_AT_ONCE,
        ) as chunks:
            for chunk in chunks:
                yield from _rows(chunk)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise SourceInvalidError(
            "the table cannot be read as text with named columns", where=f"site.yaml: {key}",
            remedy="export it as UTF-8 CSV, or tab-separated with the ending .tab",
        ) from error  # fmt: skip


def _rows(chunk: pd.DataFrame) -> Iterator[dict[str, str]]:
    names = list(chunk.columns)
    for values in chunk.itertuples(index=False, name=None):
        yield {name: value.strip() for name, value in zip(names, values, strict=True)}


def phenotype_row(cells: Mapping[int, str], *, key: str) -> np.ndarray | None:
    """Float32 [82], NaN where missing, from field number to text; None where all are missing.

    Raises:
        SourceInvalidError: a cell is neither empty nor a number.
    """
    row = np.full(len(FIELDS), np.nan, dtype=np.float32)
    for field, text in cells.items():
        if text and text.lower() not in ("na", "nan"):
            try:
                value = float(text)
            except ValueError:
                raise SourceInvalidError(
                    f"a value of field {field} is not a number", where=f"site.yaml: {key}",
                    remedy="leave missing values empty",
                ) from None  # fmt: skip
            row[field - FIELDS[0]] = value if abs(value) < 1e9 else np.nan
    return None if np.isnan(row).all() else row


def phenotype_values(row: np.ndarray | None) -> dict[int, float]:
    """Field number to value, without the missing ones."""
    if row is None:
        return {}
    return {field: float(value) for field, value in zip(FIELDS, row, strict=True) if not np.isnan(value)}
