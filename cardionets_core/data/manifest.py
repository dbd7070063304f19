"""The manifest of a site's cache: what vouches for everything else (step 4 of the walk).

    <folders.cache>/cohort/
        manifest.json         schema, site, fingerprint, files, tables, counts, doubts, refusals
        rows.parquet          row, patient, pseudonym, split, ecg, cine, other views, age, sex
        records.parquet       a row a recording, also a refused one: outcome, places in the store, facts
        phenotypes.npy        float32 [R, 82]
        diseases.npy          float32 [R, 8]: five diseases, three subtypes
    <folders.cache>/store/    the packed bytes, see store.py

No file of the cache holds an identifier, a path or a date: people are pseudonyms, recordings and files keyed
HMACs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.fingerprint import Fingerprint
from cardionets_core.data.pseudonym import other_key
from cardionets_core.data.store import LOG, PARTS
from cardionets_core.data.store_log import read_head
from cardionets_core.errors import CacheForeignError, CacheMissingError, CacheStaleError
from cardionets_core.plain_json import read_json

SCHEMA = 4
MANIFEST = "manifest.json"
ROWS = "rows.parquet"
RECORDS = "records.parquet"
PHENOTYPES = "phenotypes.npy"
DISEASES = "diseases.npy"
REBUILD = "run `prepare` again"
_FILE = re.compile(r"[a-z]{1,20}-\d{1,9}\.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` holds.

    Attributes:
        schema: of the cache.
        site: name of the site.
        content_digest: SHA-256 over rows and digests of recordings, in canonical order: equal for equal
            content, wherever it lies and in whatever order it was read.
        fingerprint: what the cache was made from.
        files: part of the store to (name of its file, bytes that are published).
        tables: name of a file of this folder to its SHA-256.
        counts: listed, records, rows, patients, ecgs, cines, unread.
        flags: doubt that did not stop a recording to number of recordings.
        notes: doubt of the tables to number of rows.
        warnings: what a person should look at, near-duplicates for one, to its number.
        refusals: reason to number of recordings.
    """

    schema: int
    site: str
    content_digest: str
    fingerprint: Fingerprint
    files: dict[str, tuple[str, int]]
    tables: dict[str, str]
    counts: dict[str, int]
    flags: dict[str, int]
    notes: dict[str, int]
    warnings: dict[str, int]
    refusals: dict[str, int]

    def to_json(self) -> str:
        """Canonical text, with the SHA-256 of itself."""
        content = asdict(self)
        return _canonical({**content, "sum": _sum(content)})


def cohort_folder(config: SiteConfig) -> Path:
    """Where a site's publication lies."""
    return config.folders.cache / "cohort"


def store_folder(config: SiteConfig) -> Path:
    """Where a site's packed bytes lie."""
    return config.folders.cache / "store"


def read_manifest(config: SiteConfig) -> Manifest:
    """The manifest of a site's cache.

    Raises:
        CacheMissingError: there is none.
        CacheStaleError: it has another schema.
        CacheForeignError: it is torn, or belongs to another site.
    """
    path = cohort_folder(config) / MANIFEST
    try:
        content = _content(path)
        schema, site = content["schema"], content["site"]
    except FileNotFoundError:
        raise CacheMissingError(
            "there is no cache yet, or it is being made", where=str(path.parent), remedy="run `prepare`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise torn(path) from error
    if site != config.site:
        raise other_site(str(site), config)
    if schema != SCHEMA:
        raise CacheStaleError("the cache has another layout", where=str(path.parent), remedy=REBUILD)
    try:
        if content.pop("sum") != _sum(content):
            raise ValueError("another content")
        files = {part: (name, length) for part, (name, length) in content["files"].items()}
        if any(not _FILE.fullmatch(name) for name, _ in files.values()):
            raise ValueError("a file of the store lies elsewhere")
        known = {**content, "fingerprint": Fingerprint(**content["fingerprint"]), "files": files}
        _check_kinds(known)
        return Manifest(**known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise torn(path) from error


def _check_kinds(known: dict[str, Any]) -> None:
    """Whether every part of a manifest is of the kind that it must be.

    Raises:
        ValueError: one is not.
    """
    words = [known["content_digest"], *known["tables"].values(), *asdict(known["fingerprint"]).values()]
    counts = [length for _, length in known["files"].values()]
    for part in ("counts", "flags", "notes", "warnings", "refusals"):
        counts += known[part].values()
    fits = all(isinstance(word, str) for word in words) and all(
        type(count) is int and 0 <= count < 2**48 for count in counts
    )
    if not fits or known["files"].keys() != {*PARTS} or not {ROWS, RECORDS} <= known["tables"].keys():
        raise ValueError("not a manifest's content")


def refuse_other_site(config: SiteConfig) -> None:
    """Stop before another site's cache is replaced.

    Raises:
        CacheForeignError: a manifest or log that can be read names another site.
    """
    head = read_head(store_folder(config) / LOG)
    sites = [] if head is None else [head.site]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        sites.append(str(_content(cohort_folder(config) / MANIFEST)["site"]))
    for site in sites:
        if site != config.site:
            raise other_site(site, config)


def refuse_other_key(config: SiteConfig, key: str) -> None:
    """Stop before a cache of another key is replaced: everybody would get a new pseudonym and a new split.

    Args:
        config: of the site.
        key: tells which key is in use, see ``Fingerprint``; empty where there is none.

    Raises:
        CacheForeignError: the log, or where it cannot be read the manifest, was made with another key.
    """
    head = read_head(store_folder(config) / LOG)
    made = "" if head is None else head.key
    if head is None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            made = str(_content(cohort_folder(config) / MANIFEST)["fingerprint"]["key"])
    if made and made != key:
        raise other_key(config.folders.cache)


def other_site(site: str, config: SiteConfig) -> CacheForeignError:
    """The error for a cache of another site."""
    return CacheForeignError(
        f"the cache was made for the site {site!r}, not for {config.site!r}", where=str(config.folders.cache),
        remedy="give each site its own folders.cache, or delete the cache if the site was renamed",
    )  # fmt: skip


def torn(path: Path) -> CacheForeignError:
    """The error for a cache whose bytes are not those that were written."""
    return CacheForeignError("the cache is torn", where=str(path), remedy=REBUILD)


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("not an object")
    return content


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
