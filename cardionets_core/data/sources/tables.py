"""Reading a site's tables: columns by name, cells as text, nothing guessed (step 2 of the walk).

CSV, tab-separated text and Parquet come out alike: an empty string where a cell is missing, a whole number
without a point, a list as JSON. Errors name the key of the site's document, never a row or a cell.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cardionets_core.data.sources.base import require_file
from cardionets_core.errors import SourceInvalidError

_CELLS_AT_ONCE = 1_000_000
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
    require_file(path, key=key)
    with _told(key):
        if _is_parquet(path):
            with pq.ParquetFile(path, pre_buffer=False) as table:
                return [str(name) for name in table.schema_arrow.names]
        return _text_names(path)


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
        SourceInvalidError: it is no table, or lacks a column.
    """
    require_file(path, key=key)
    with _told(key):
        pieces = _parquet_pieces if _is_parquet(path) else _text_pieces
        yield from pieces(path, key, columns, keep)


def read_table(
    path: Path, *, key: str, columns: tuple[str, ...] = (), keep: Callable[[str], bool] | None = None
) -> Iterator[dict[str, str]]:
    """Rows of a table as text; see ``read_columns``."""
    for piece in read_columns(path, key=key, columns=columns, keep=keep):
        names = tuple(piece)
        for cells in zip(*piece.values(), strict=True):
            yield dict(zip(names, cells, strict=True))


@contextlib.contextmanager
def _told(key: str) -> Iterator[None]:
    """The libraries' many errors as one that names the key."""
    try:
        yield
    except (ValueError, OSError, pd.errors.ParserError, pa.ArrowException) as error:
        raise SourceInvalidError(
            "the table cannot be read with named columns", where=f"site.yaml: {key}",
            remedy="export it as UTF-8 CSV, as tab-separated text with the ending .tab, or as Parquet",
        ) from error  # fmt: skip


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in _PARQUET_SUFFIXES


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() in _TAB_SUFFIXES else ","


def _text_names(path: Path) -> list[str]:
    header = pd.read_csv(path, sep=_separator(path), nrows=0, encoding="utf-8-sig")
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
    wanted = _chosen(_text_names(path), key, columns, keep)
    with pd.read_csv(
        path,
        sep=_separator(path),
        usecols=wanted,
        dtype=object,
        keep_default_na=False,
        index_col=False,
        encoding="utf-8-sig",
        chunksize=_rows_at_once(wanted),
    ) as chunks:
        for chunk in chunks:
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
    with pq.ParquetFile(path, pre_buffer=False) as table:
        wanted = _chosen(list(table.schema_arrow.names), key, columns, keep)
        empty = True
        for batch in table.iter_batches(_rows_at_once(wanted), columns=wanted, use_threads=False):
            empty = False
            yield {name: [_text(value) for value in batch.column(name).to_pylist()] for name in wanted}
        if empty:
            yield {name: [] for name in wanted}


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=str)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
