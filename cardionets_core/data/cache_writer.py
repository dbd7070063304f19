"""Writing a publication: it appears at once or not at all, by one process at a time (step 4 of the walk).

Comes in: the content that ``publish`` composed. Goes out: the folder ``cohort``. A report with pictures that
was made of an earlier publication goes with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.fingerprint import Fingerprint
from cardionets_core.data.leakage import check_leakage
from cardionets_core.data.manifest import (
    DISEASES,
    MANIFEST,
    PHENOTYPES,
    RECORDS,
    ROWS,
    SCHEMA,
    Manifest,
    cohort_folder,
)
from cardionets_core.data.publish import Draft
from cardionets_core.durable import sync_folder
from cardionets_core.errors import DataError

REPORT = "report"
"""Folder beside the publication where the client keeps its report; removed with what it shows."""


def write_publication(
    config: SiteConfig,
    draft: Draft,
    *,
    fingerprint: Fingerprint,
    files: Mapping[str, tuple[str, int]],
    left_out: Mapping[str, int],
    notes: Mapping[str, int],
    warnings: Mapping[str, int],
    unread: int = 0,
) -> None:
    """Complete a publication and put it in the place of the earlier one.

    Args:
        config: of the site.
        draft: its content.
        fingerprint: what it was made from.
        files: part of the store to (name of its file, bytes that may be shown).
        left_out: reason to number of recordings that the source did not even list.
        notes: doubts of the source about its tables.
        warnings: what a person should look at.
        unread: recordings whose files could not be read and are tried again by the next ``prepare``.

    Raises:
        DataError: a person stands in two splits.
    """
    check_leakage(np.array(draft.rows["patient"], dtype=np.int64), np.array(draft.rows["split"], np.int64))
    folder = cohort_folder(config)
    new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.new-", dir=folder.parent))
    tables = {
        ROWS: _write_parquet(new / ROWS, draft.row_table()),
        RECORDS: _write_parquet(new / RECORDS, draft.record_table()),
        PHENOTYPES: _write_array(new / PHENOTYPES, draft.phenotype_array()),
        DISEASES: _write_array(new / DISEASES, draft.disease_array()),
    }
    refusals = draft.refusals + _counts(left_out)
    content = draft.content.copy()
    content.update(repr((config.site, sorted(refusals.items()))).encode())
    counts = {**draft.counts(), "unread": unread}
    manifest = Manifest(
        schema=SCHEMA,
        site=config.site,
        content_digest=content.hexdigest(),
        fingerprint=fingerprint,
        files=dict(files),
        tables=tables,
        counts={**counts, "listed": counts["records"] + sum(left_out.values())},
        flags=dict(sorted(draft.flags.items())),
        notes=dict(sorted(_counts(notes).items())),
        warnings=dict(sorted(_counts(warnings).items())),
        refusals=dict(sorted(refusals.items())),
    )
    _write(new / MANIFEST, manifest.to_json().encode())
    sync_folder(new)
    _swap(new, folder)


def unpublish(config: SiteConfig) -> None:
    """Take down what is published, and the report of it; first of all the manifest, without which it is not.

    What is mapped already stays readable to the process that mapped it.
    """
    folder = cohort_folder(config)
    _remove_report(folder)
    if folder.exists():
        with contextlib.suppress(IsADirectoryError):  # something else in its place goes with the rest
            (folder / MANIFEST).unlink(missing_ok=True)
        sync_folder(folder)
        shutil.rmtree(folder)
        sync_folder(folder.parent)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache's folder, and sweep out what a killed run left there.

    Raises:
        DataError: another run is preparing this cache, or the folder cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f"{folder.name}.lock").open("wb")
    except OSError as error:
        raise DataError(
            f"the cache's folder cannot be written to: {error.strerror}",
            where=f"folders.cache: {folder.parent}",
            remedy="name a folder that this account may write to",
        ) from error  # fmt: skip
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                "another run is preparing this cache", where=f"folders.cache: {folder.parent}",
                remedy="wait until it ends",
            ) from error  # fmt: skip
        for left in [
            *folder.parent.glob(f"{folder.name}.new-*"),
            *folder.parent.glob(f"{folder.name}.old-*"),
        ]:
            shutil.rmtree(left, ignore_errors=True)
        yield


def _swap(new: Path, folder: Path) -> None:
    """Put the draft in the publication's place; killed in between, there is none until the next run."""
    _remove_report(folder)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.old-", dir=folder.parent))
    if os.path.lexists(folder):
        folder.rename(aside / folder.name)
    new.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(aside)


def _remove_report(folder: Path) -> None:
    """Pictures of somebody who has withdrawn may not stay because a file could not be deleted: it raises."""
    report = folder.parent / REPORT
    if report.exists():
        shutil.rmtree(report)


def _counts(values: Mapping[str, int]) -> Counter[str]:
    return Counter({name: count for name, count in values.items() if count > 0})


def _write_parquet(path: Path, table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return _write(path, memoryview(sink.getvalue()))


def _write_array(path: Path, array: np.ndarray) -> str:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, content: bytes | memoryview) -> str:
    """Write and flush to disk; gives the SHA-256."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(content).hexdigest()
