"""The tables and labels of a publication, read as if another hand had written them (step 4 of the walk).

Comes in: files of the cohort's folder. Goes out: columns and arrays whose numbers lead to bytes that are
there. A digest tells that a file is the one that the manifest names; whoever can write both chooses what it
holds, and a number of it becomes a place in a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cardionets_core.data.cohort import SEXES, SPLITS
from cardionets_core.data.records import LEADS, VIEWS
from cardionets_core.data.storage import map_file
from cardionets_core.exchange.npy import LONGEST_HEADER, npy_header

MOST_ROWS = 20_000_000
MOST_BYTES = 16_000_000_000
"""Of a table, unpacked; a packed one can hold anything in a few bytes."""


def parquet_table(content: bytes, *, columns: list[str] | None) -> pa.Table:
    """A table.

    Args:
        content: of its file.
        columns: that are wanted; all by default.

    Raises:
        ValueError, KeyError, OSError, pa.ArrowException: it cannot be read, or is larger than any of ours.
    """
    # No threads: arrow's pools can outlive the interpreter and abort it at exit.
    stream = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
    facts = stream.metadata
    groups = (facts.row_group(number) for number in range(facts.num_row_groups))
    if facts.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > MOST_BYTES:
        raise ValueError("a table of too many rows")
    return stream.read(columns=columns, use_threads=False)


def label_array(path: Path, *, rows: int, names: int) -> np.ndarray:
    """Float32 [rows, names], mapped.

    Raises:
        PeerError, ValueError, OSError: the file does not hold that.
    """
    with path.open("rb") as stream:
        dtype, shape, place = npy_header(stream.read(LONGEST_HEADER + 10))
    if dtype != np.dtype("<f4") or shape != (rows, names):
        raise ValueError("labels of another type or shape")
    if path.stat().st_size != place + 4 * math.prod(shape):
        raise ValueError("labels of another length")
    if not rows:
        return np.zeros(shape, dtype="<f4")
    return np.memmap(path, dtype="<f4", mode="r", shape=shape, offset=place)


def check_rows(column: Mapping[str, np.ndarray], *, ecgs: int, cines: int) -> None:
    """Whether every number of ``rows.parquet`` leads to something.

    Args:
        column: of the table, without pseudonyms.
        ecgs: accepted ECGs.
        cines: items of the store.

    Raises:
        ValueError: one does not, or a column is absent or of another type.
    """
    bounds = {"patient": (0, 2**40), "split": (0, len(SPLITS)), "sex": (-1, len(SEXES)), "ecg": (-1, ecgs)}
    bounds |= dict.fromkeys(VIEWS, (-1, cines))
    for name, (least, end) in bounds.items():
        _check(column, name, least, end)
    if "age_years" not in column or column["age_years"].dtype.kind != "f":
        raise ValueError("a column of another type: age_years")


def check_places(column: Mapping[str, np.ndarray], *, maps: Mapping[str, np.ndarray]) -> None:
    """Whether every place of ``records.parquet`` lies in the published bytes.

    Args:
        column: ``PLACES`` of the table.
        maps: ``ecg``, ``cines`` and ``signatures``: the published bytes.

    Raises:
        ValueError: one does not, or a column is of another type.
    """
    samples = len(maps["ecg"]) // len(LEADS)
    _check(column, "ecg_offset", -1, samples + 1)
    _check(column, "ecg_samples", 0, samples + 1)
    _check(column, "signature_start", -1, len(maps["signatures"]) + 1)
    for view in VIEWS:
        _check(column, f"item_{view}", -1, len(maps["cines"]))
    ends = column["ecg_offset"] + column["ecg_samples"]
    if ((column["ecg_samples"] > 0) & ((column["ecg_offset"] < 0) | (ends > samples))).any():
        raise ValueError("a recording lies outside of the store")


def store_maps(
    folder: Path, files: Mapping[str, tuple[str, int]], *, cine: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """The published bytes of the store; the files may have grown since.

    Args:
        folder: of the store.
        files: part to name and published bytes.
        cine: shape of an item.

    Raises:
        ValueError, KeyError, OSError: a file is absent or shorter.
    """
    (ecg, ecg_bytes), (cines, cine_bytes) = files["ecg"], files["cines"]
    signatures, signature_bytes = files["signatures"]
    return {
        "ecg": map_file(folder / ecg, "<i2", shape=(ecg_bytes // 2,)),
        "cines": map_file(folder / cines, "|u1", shape=(cine_bytes // math.prod(cine), *cine)),
        "signatures": map_file(folder / signatures, "|u1", shape=(signature_bytes,)),
    }


def _check(column: Mapping[str, np.ndarray], name: str, least: int, end: int) -> None:
    values = column.get(name)
    # With a gap in it, a column of numbers comes as floats.
    if values is None or values.dtype.kind != "i":
        raise ValueError(f"a column is absent or of another type: {name}")
    if len(values) and not (least <= values.min() and values.max() < end):
        raise ValueError(f"a number leads to nothing: {name}")
