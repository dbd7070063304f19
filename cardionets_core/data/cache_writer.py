"""Writing the cache: rows stream in, the whole folder appears at once or not at all (step 4 of the walk)."""

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
from types import TracebackType
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cardionets_core.data.cache import MANIFEST, ROWS, SCHEMA, Manifest
from cardionets_core.data.cohort import CINE_FRAMES, CINE_PIXELS
from cardionets_core.data.fingerprint import Fingerprint
from cardionets_core.data.leakage import check_leakage
from cardionets_core.data.phenotypes import FIELDS
from cardionets_core.data.records import DISEASES, Person
from cardionets_core.data.storage import ArrayAppender
from cardionets_core.errors import DataError

_Name = TypeVar("_Name", int, str)


class CacheWriter:
    """A cache in the making, in a folder of its own beside the one that it will replace.

    Args:
        folder: where the cache shall lie; replaced by ``commit`` only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.new-", dir=folder.parent))
        cine = (CINE_FRAMES, CINE_PIXELS, CINE_PIXELS)
        self._arrays = {
            "ecg": ArrayAppender(self._draft / "ecg.npy", "<i2"),
            "ecg_samples": ArrayAppender(self._draft / "ecg_samples.npy", "<i8"),
            "cines": ArrayAppender(self._draft / "cines.npy", "|u1", item_shape=cine),
            "phenotypes": ArrayAppender(self._draft / "phenotypes.npy", "<f4", item_shape=(len(FIELDS),)),
            "diseases": ArrayAppender(self._draft / "diseases.npy", "<f4", item_shape=(len(DISEASES),)),
        }
        self._rows: dict[str, list[int]] = {"patient": [], "split": [], "ecg": [], "cine": []}
        self._pseudonyms: list[str] = []
        self.flags: Counter[str] = Counter()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Remove whatever was not committed."""
        for array in self._arrays.values():
            array.abandon()
        shutil.rmtree(self._draft, ignore_errors=True)

    def add_ecg(self, counts: np.ndarray) -> int:
        """Append int16 [12, T]; gives its index."""
        self._arrays["ecg"].append(counts.reshape(-1))
        self._arrays["ecg_samples"].append(np.array([counts.shape[1]], dtype="<i8"))
        return self._arrays["ecg_samples"].items - 1

    def add_cine(self, pixels: np.ndarray) -> int:
        """Append uint8 [50, 96, 96]; gives its index."""
        self._arrays["cines"].append(pixels)
        return self._arrays["cines"].items - 1

    def add_row(self, *, pseudonym: str, split: int, ecg: int, cine: int, person: Person) -> None:
        """Append a row; rows of one person come one after another."""
        known = bool(self._pseudonyms) and self._pseudonyms[-1] == pseudonym
        patient = self._rows["patient"][-1] + (not known) if self._pseudonyms else 0
        for name, value in (("patient", patient), ("split", split), ("ecg", ecg), ("cine", cine)):
            self._rows[name].append(value)
        self._pseudonyms.append(pseudonym)
        self._arrays["phenotypes"].append(_row(person.phenotypes, FIELDS))
        self._arrays["diseases"].append(_row(person.diseases, DISEASES))

    def commit(
        self, *, site: str, fingerprint: Fingerprint, listed: int, refusals: Mapping[str, int]
    ) -> None:
        """Complete the cache and put it in its place.

        Raises:
            DataError: a person stands in two splits.
        """
        check_leakage(
            np.array(self._rows["patient"], dtype=np.int64), np.array(self._rows["split"], dtype=np.int64)
        )
        stored = {name: array.close() for name, array in self._arrays.items()}
        table = pa.table({
            "row": pa.array(range(len(self._pseudonyms)), type=pa.int64()),
            "patient": pa.array(self._rows["patient"], type=pa.int64()),
            "pseudonym": pa.array(self._pseudonyms, type=pa.string()),
            "split": pa.array(self._rows["split"], type=pa.int8()),
            "ecg": pa.array(self._rows["ecg"], type=pa.int64()),
            "cine": pa.array(self._rows["cine"], type=pa.int64()),
        })  # fmt: skip
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
        _write(self._draft / ROWS, content)
        counts = {"listed": listed, "rows": len(self._pseudonyms), "patients": len(set(self._pseudonyms)),
                  "ecgs": stored["ecg_samples"].shape[0], "cines": stored["cines"].shape[0]}  # fmt: skip
        manifest = Manifest(
            schema=SCHEMA,
            site=site,
            fingerprint=fingerprint,
            arrays=stored,
            rows_sha256=hashlib.sha256(content).hexdigest(),
            counts=counts,
            flags=dict(sorted(self.flags.items())),
            refusals=dict(sorted((reason, count) for reason, count in refusals.items() if count)),
        )
        _write(self._draft / MANIFEST, manifest.to_json().encode())
        _sync_folder(self._draft)
        self._swap()

    def _swap(self) -> None:
        """Put the draft in the cache's place; killed in between, there is no cache until the next run."""
        aside = Path(tempfile.mkdtemp(prefix=f"{self._folder.name}.old-", dir=self._folder.parent))
        if self._folder.exists():
            self._folder.rename(aside / "cohort")
        self._draft.rename(self._folder)
        _sync_folder(self._folder.parent)
        shutil.rmtree(aside, ignore_errors=True)


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


def _row(values: Mapping[_Name, float], names: tuple[_Name, ...]) -> np.ndarray:
    return np.array([values.get(name, np.nan) for name in names], dtype="<f4")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
