"""Reading a site's tables: columns by name, cells as text, nothing guessed (step 2 of the walk).

CSV, tab-separated text and Parquet come out alike: an empty string where a cell is missing, a whole number
without a point, a list as JSON. Errors name the key of the site's document, never a row or a cell.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cardionets_core.data.sources.table_files import MAXIMUM_PIECE_BYTES, open_text, require_parquet
from cardionets_core.errors import SourceInvalidError

_CELLS_AT_ONCE = 1_000_000
_CELLS_PASSED = 2_000_000
"""Cells of one piece with those of columns that are not read, which are parsed all the same."""
MAXIMUM_COLUMNS = 100_000
"""Three times all of UK Biobank."""
_MAXIMUM_REPEATED = 1_000
_FEWEST_ROWS = 512
"""Of a piece of a very wide table."""
_MAXIMUM_ROWS = 100_000_000
"""Of a Parquet table, whose size on disk says little."""
_TAB_SUFFIXES = (".tab", ".tsv", ".txt")
_PARQUET_SUFFIXES = (".parquet", ".pq")
_WHOLE_AS_FLOAT = re.compile(r"(-?\d+)\.0*")
Columns = dict[str, list[str]]
"""Name of a column to its cells; all columns have the same length."""


def identifier(text: str) -> str:
    """A person or visit as every table is compared: ``15709.0``, a float by accident, is ``15709``."""
    text = text.strip()
    if "." not in text:
        return text
    match = _WHOLE_AS_FLOAT.fullmatch(text)
    return match[1] if match else text


def column_names(path: Path, *, key: str) -> list[str]:
    """Names of all columns of a table.

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: it is no table.
    """
    with _told(key):
        if _is_parquet(path):
            with pq.ParquetFile(require_parquet(path, key=key), pre_buffer=False) as table:
                return [str(name) for name in table.schema_arrow.names]
        return _text_names(path, key)


def read_columns(
    path: Path, *, key: str, columns: tuple[str, ...] = (), keep: Callable[[str], bool] | None = None
) -> Iterator[Columns]:
    """Pieces of a table, about a million cells each; one empty piece where it has no rows.

    Args:
        path: the file; ``.parquet`` and ``.pq`` are Parquet, ``.tab``, ``.tsv`` and ``.txt`` split at tabs,
            all else at commas.
        key: of the site's document, for errors.
        columns: names that must be there.
        keep: chooses further columns to load.

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: it is no table, is too large, or lacks a column.
    """
    with _told(key):
        pieces = _parquet_pieces if _is_parquet(path) else _text_pieces
        yield from pieces(path, key, columns, keep)


@contextlib.contextmanager
def _told(key: str) -> Iterator[None]:
    """The libraries' many errors as one that names the key."""
    try:
        yield
    except (ValueError, OSError, csv.Error, pd.errors.ParserError, pa.ArrowException) as error:
        raise SourceInvalidError(
            "the table cannot be read with named columns", where=f"site.yaml: {key}",
            remedy="export it as UTF-8 CSV, as tab-separated text with the ending .tab, or as Parquet",
        ) from error  # fmt: skip


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _PARQUET_SUFFIXES


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() in _TAB_SUFFIXES else ","


def _text_names(path: Path, key: str) -> list[str]:
    with open_text(path, key=key) as (text, _):
        # The csv module reads names for almost nothing; pandas takes long over many, and over equal ones.
        names = next(filter(None, csv.reader(text, delimiter=_separator(path))), [])
    given = [name for name in names if name]
    if len(names) > MAXIMUM_COLUMNS or len(given) - len(set(given)) > _MAXIMUM_REPEATED:
        raise SourceInvalidError(
            f"the table has {len(names):,} columns, more than are read, or many of one name",
            where=f"site.yaml: {key}",
            remedy="name the right file, or export only the columns that are read",
        )
    with open_text(path, key=key) as (text, _):
        header = pd.read_csv(text, sep=_separator(path), nrows=0)
    return [str(name) for name in header.columns]


def _chosen(
    names: list[str], key: str, columns: tuple[str, ...], keep: Callable[[str], bool] | None
) -> list[str]:
    missing = [name for name in columns if name not in names]
    if missing:
        raise SourceInvalidError(
            f"the table lacks the column(s) {missing}; it has {len(names)} others",
            where=f"site.yaml: {key}",
            remedy=f"export it with the columns {list(columns)}, or declare what yours are called",
        )
    return [name for name in names if name in columns or (keep is not None and keep(name))]


def _rows_at_once(columns: list[str]) -> int:
    return max(1, _CELLS_AT_ONCE // max(1, len(columns)))


def _text_pieces(
    path: Path, key: str, columns: tuple[str, ...], keep: Callable[[str], bool] | None
) -> Iterator[Columns]:
    names = _text_names(path, key)
    wanted = _chosen(names, key, columns, keep)
    with (
        open_text(path, key=key) as (text, stream),
        pd.read_csv(
            text,
            sep=_separator(path),
            usecols=wanted,
            dtype=object,
            keep_default_na=False,
            index_col=False,
            chunksize=min(_rows_at_once(wanted), max(_FEWEST_ROWS, _CELLS_PASSED // len(names))),
        ) as chunks,
    ):
        for chunk in chunks:
            stream.begin_piece()
            # A short last line gives a cell that is no text.
            yield {
                name: [
                    cell and (cell.strip() if isinstance(cell, str) else "") for cell in chunk[name].tolist()
                ]
                for name in wanted
            }


def _parquet_pieces(
    path: Path, key: str, columns: tuple[str, ...], keep: Callable[[str], bool] | None
) -> Iterator[Columns]:
    # No threads: arrow's pools can outlive the interpreter and abort it at exit.
    with pq.ParquetFile(require_parquet(path, key=key), pre_buffer=False) as table:
        if table.metadata.num_rows > _MAXIMUM_ROWS:
            raise _too_large(key)
        wanted = _chosen(list(table.schema_arrow.names), key, columns, keep)
        empty = True
        for batch in table.iter_batches(_rows_at_once(wanted), columns=wanted, use_threads=False):
            empty = False
            if batch.nbytes > MAXIMUM_PIECE_BYTES:
                raise _too_large(key)
            yield {name: [_text(value) for value in batch.column(name).to_pylist()] for name in wanted}
        if empty:
            yield {name: [] for name in wanted}


def _too_large(key: str) -> SourceInvalidError:
    return SourceInvalidError(
        "the table has more rows, or longer cells, than are read", where=f"site.yaml: {key}",
        remedy="name the right file, or export only the rows and columns that are needed",
    )  # fmt: skip


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=str)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
