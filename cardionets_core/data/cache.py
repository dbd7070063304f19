"""The packed cache of a site: opening, and the manifest that vouches for it (step 4 of the walk).

Comes in: a site's document. Goes out: a ``Cohort`` over memory maps. No file of the cache holds an
identifier, a path or a date: people are pseudonyms, and the listing of files is a keyed HMAC.

    <folders.cache>/cohort/
        manifest.json     schema, site, fingerprint, arrays, counts, flags, refusals
        rows.parquet      row, patient, pseudonym, split, ecg, cine
        ecg.npy           int16, flat, microvolts           ecg_samples.npy   int64 [records]
        cines.npy         uint8 [cines, 50, 96, 96]
        phenotypes.npy    float32 [R, 82]                   diseases.npy      float32 [R, 5]
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cohort import SPLITS, Cohort
from cardionets_core.data.fingerprint import Fingerprint, fingerprint
from cardionets_core.data.leakage import check_leakage
from cardionets_core.data.pseudonym import load_key
from cardionets_core.data.sources import open_source
from cardionets_core.data.storage import StoredArray, load_array
from cardionets_core.errors import CacheForeignError, CacheStaleError, DataError

SCHEMA = 1
ARRAYS = ("ecg", "ecg_samples", "cines", "phenotypes", "diseases")
MANIFEST = "manifest.json"
ROWS = "rows.parquet"
_REBUILD = "run `prepare` again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` holds."""

    schema: int
    site: str
    fingerprint: Fingerprint
    arrays: dict[str, StoredArray]
    rows_sha256: str
    counts: dict[str, int]
    flags: dict[str, int]
    refusals: dict[str, int]

    @property
    def content_digest(self) -> str:
        """SHA-256 over all but the fingerprint: equal for equal bytes, wherever the files lay."""
        content = asdict(self)
        del content["fingerprint"]
        return hashlib.sha256(_canonical(content).encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical text."""
        return _canonical(asdict(self))


def cohort_folder(config: SiteConfig) -> Path:
    """Where a site's cache lies."""
    return config.folders.cache / "cohort"


def read_manifest(config: SiteConfig) -> Manifest:
    """The manifest of a site's cache.

    Raises:
        CacheStaleError: there is none, or one of another schema.
        CacheForeignError: it is torn, or belongs to another site.
    """
    path = cohort_folder(config) / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema, site = content["schema"], content["site"]
    except FileNotFoundError:
        raise CacheStaleError(
            "there is no cache yet", where=str(path.parent), remedy="run `prepare`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _torn(path) from error
    if schema != SCHEMA:
        raise CacheStaleError("the cache has another layout", where=str(path.parent), remedy=_REBUILD)
    if site != config.site:
        raise CacheForeignError(
            f"the cache was made for the site {site!r}, not for {config.site!r}", where=str(path.parent),
            remedy="give each site its own folders.cache, or delete the cache if the site was renamed",
        )  # fmt: skip
    try:
        arrays = {
            name: StoredArray(dtype=entry["dtype"], shape=tuple(entry["shape"]), sha256=entry["sha256"])
            for name, entry in content["arrays"].items()
        }
        known = {**content, "fingerprint": Fingerprint(**content["fingerprint"]), "arrays": arrays}
        return Manifest(**known)
    except (KeyError, TypeError, AttributeError) as error:
        raise _torn(path) from error


def open_cache(config: SiteConfig, *, check: Literal["full", "quick"] = "full") -> Cohort:
    """Open what ``prepare`` made.

    Args:
        config: of the site.
        check: ``full`` compares the site's files with those that were prepared and every array with its
            digest; ``quick`` looks only at the settings, the code and the shapes, for use between two rounds.

    Raises:
        CacheStaleError: no cache, or data, code or settings have changed since.
        CacheForeignError: another site's, made with another key, or torn.
        DataError: a person stands in two splits, or the key is gone.
    """
    manifest = read_manifest(config)
    key = load_key(config.folders.secret)
    full = check == "full"
    now = fingerprint(config, key=key, source=open_source(config) if full else None)
    folder = cohort_folder(config)
    if manifest.fingerprint.key != now.key:
        raise CacheForeignError("the cache was made with another key", where=str(folder), remedy=_REBUILD)
    if manifest.fingerprint.settings != now.settings:
        raise CacheStaleError("settings or code have changed", where=str(folder), remedy=_REBUILD)
    if full and manifest.fingerprint.listing != now.listing:
        raise CacheStaleError("the site's files have changed", where=str(folder), remedy=_REBUILD)
    try:
        arrays = {
            name: load_array(folder / f"{name}.npy", manifest.arrays[name], verify=full) for name in ARRAYS
        }
        content = (folder / ROWS).read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest.rows_sha256:
            raise ValueError("another content")
        # No threads: arrow's pools can outlive the interpreter and abort it at exit.
        rows = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
        columns = {name: rows[name].to_numpy() for name in ("patient", "split", "ecg", "cine")}
    except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
        raise _torn(folder) from error
    check_leakage(columns["patient"], columns["split"])
    if len(set(rows["pseudonym"].to_pylist())) != len(np.unique(columns["patient"])):
        raise DataError("pseudonyms and people do not match", where=str(folder), remedy=_REBUILD)
    samples = np.asarray(arrays["ecg_samples"])
    return Cohort(
        site=manifest.site,
        digest=manifest.content_digest,
        ecg_counts=arrays["ecg"],
        ecg_offsets=np.cumsum(samples) - samples,
        ecg_samples=samples,
        cines=arrays["cines"],
        row_patient=columns["patient"].astype(np.int64),
        row_split=columns["split"].astype(np.int8),
        row_ecg=columns["ecg"].astype(np.int64),
        row_cine=columns["cine"].astype(np.int64),
        phenotypes=arrays["phenotypes"],
        diseases=arrays["diseases"],
        refusals=dict(manifest.refusals),
    )


def summary(cohort: Cohort) -> dict[str, Any]:
    """Counts of a cohort by split, for people; holds no value of any one person."""
    needs = {"ecg": cohort.row_ecg >= 0, "cine": cohort.row_cine >= 0,
             "phenotypes": ~np.isnan(cohort.phenotypes).all(axis=1)}  # fmt: skip
    report: dict[str, Any] = {"site": cohort.site, "digest": cohort.digest, "refusals": dict(cohort.refusals)}
    for index, name in enumerate(SPLITS):
        here = cohort.row_split == index
        report[name] = {
            "patients": cohort.patients(np.flatnonzero(here)),
            "recordings": int((here & needs["ecg"]).sum()),
            "cines": len(np.unique(cohort.row_cine[here & needs["cine"]])),
            "pairs": int((here & needs["ecg"] & needs["cine"]).sum()),
            "phenotype_rows": int((here & needs["phenotypes"]).sum()),
        }
    return report


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _torn(path: Path) -> CacheForeignError:
    return CacheForeignError("the cache is torn", where=str(path), remedy=_REBUILD)
