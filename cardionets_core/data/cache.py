"""Opening the cache of a site (step 4 of the walk).

Comes in: a site's document. Goes out: a ``Cohort`` over memory maps of the store. What is stale, torn or
another's is refused by name; nothing is mended here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cohort import CINE_FRAMES, CINE_PIXELS, SPLITS, Cohort
from cardionets_core.data.duplicates import SIGNATURE_LENGTH
from cardionets_core.data.fingerprint import Fingerprint, fingerprint
from cardionets_core.data.leakage import check_leakage
from cardionets_core.data.listing import take_listing
from cardionets_core.data.manifest import (
    DISEASES,
    MANIFEST,
    PHENOTYPES,
    REBUILD,
    RECORDS,
    ROWS,
    Manifest,
    cohort_folder,
    read_manifest,
    store_folder,
    torn,
)
from cardionets_core.data.pack import packed_digest
from cardionets_core.data.phenotypes import FIELDS
from cardionets_core.data.pseudonym import load_key, other_key
from cardionets_core.data.publish import BYTES_A_SAMPLE, INTERNAL, PLACES
from cardionets_core.data.published import check_places, check_rows, label_array, parquet_table, store_maps
from cardionets_core.data.records import LABELS, LEADS, VIEWS
from cardionets_core.data.sources import open_source
from cardionets_core.data.storage import regular_file
from cardionets_core.errors import CacheStaleError, DataError, PeerError

__all__ = ["MANIFEST", "cohort_folder", "open_cache", "read_manifest", "record_table", "summary"]

UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, PeerError, pa.ArrowException)
"""What comes of tables and labels that are none of ours."""
_SIGNATURE_BYTES = 4 * SIGNATURE_LENGTH


def open_cache(config: SiteConfig, *, check: Literal["full", "quick"] = "full") -> Cohort:
    """Open what ``prepare`` made.

    Args:
        config: of the site.
        check: ``full`` compares the site's files with those that were prepared and every recording with its
            digest; ``quick`` looks only at settings, code, lists of withdrawals and lengths, for use between
            two rounds.

    Raises:
        CacheStaleError: no cache, or data, code or settings have changed since.
        CacheForeignError: another site's, made with another key, or torn.
        DataError: a person stands in two splits, or the key is gone.
    """
    read_manifest(config)
    key = load_key(config.folders.secret)
    source = open_source(config)
    now = fingerprint(config, key=key, source=source)
    if check == "full":
        now = replace(now, listing=take_listing(source, key=key).digest)
    return open_published(config, now=now, verify=check == "full")


def open_published(config: SiteConfig, *, now: Fingerprint, verify: bool) -> Cohort:
    """Open the cache if it was made from the present state.

    Args:
        config: of the site.
        now: the present state; an empty listing is not compared.
        verify: also compare every recording with its digest.

    Raises:
        CacheStaleError, CacheForeignError, DataError: as ``open_cache``.
    """
    manifest = read_manifest(config)
    made, folder = manifest.fingerprint, cohort_folder(config)
    if made.key != now.key:
        raise other_key(config.folders.cache)
    if (made.chain, made.settings) != (now.chain, now.settings):
        raise CacheStaleError("settings or code have changed", where=str(folder), remedy=REBUILD)
    if made.withdrawals != now.withdrawals:
        raise CacheStaleError("the list of withdrawals has changed", where=str(folder), remedy=REBUILD)
    if now.listing and (made.tables, made.listing) != (now.tables, now.listing):
        raise CacheStaleError("the site's files have changed", where=str(folder), remedy=REBUILD)
    try:
        rows = _table(config, manifest, ROWS, columns=None)
        records = _table(config, manifest, RECORDS, columns=["kind", "digest", *PLACES])
        maps = store_maps(store_folder(config), manifest.files, cine=(CINE_FRAMES, CINE_PIXELS, CINE_PIXELS))
        places = {name: records[name].to_numpy() for name in PLACES}
        check_places(places, maps=maps)
        if verify:
            _verify(config, manifest, places, digests=records["digest"].to_pylist(), maps=maps)
        phenotypes, diseases = (
            label_array(regular_file(folder / name), rows=rows.num_rows, names=len(names))
            for name, names in ((PHENOTYPES, FIELDS), (DISEASES, LABELS))
        )
        column = {name: rows[name].to_numpy() for name in rows.column_names if name != "pseudonym"}
        offsets, samples = places["ecg_offset"], places["ecg_samples"]
        check_rows(column, ecgs=int((samples > 0).sum()), cines=len(maps["cines"]))
        pseudonyms = set(rows["pseudonym"].to_pylist())
    except UNREADABLE as error:
        raise torn(folder) from error
    check_leakage(column["patient"], column["split"])
    if len(pseudonyms) != len(np.unique(column["patient"])):
        raise DataError("pseudonyms and people do not match", where=str(folder), remedy=REBUILD)
    return Cohort(
        site=manifest.site,
        digest=manifest.content_digest,
        ecg_counts=maps["ecg"],
        ecg_offsets=offsets[samples > 0].astype(np.int64),
        ecg_samples=samples[samples > 0].astype(np.int64),
        cines=maps["cines"],
        row_patient=column["patient"].astype(np.int64),
        row_split=column["split"].astype(np.int8),
        row_ecg=column["ecg"].astype(np.int64),
        row_cine=column["4ch"].astype(np.int64),
        phenotypes=phenotypes,
        diseases=diseases,
        refusals=dict(manifest.refusals),
        row_views={
            view: column[view].astype(np.int64)
            for view in VIEWS
            if view != "4ch" and view in config.prepare.views
        },
        row_age_years=column["age_years"].astype(np.float32),
        row_sex=column["sex"].astype(np.int8),
    )


def record_table(config: SiteConfig) -> pa.Table:
    """A row a recording, also a refused one, for the site's own report; nothing is compared with the source.

    Columns: kind, accepted, reason, flags, format, split, pseudonym, and a nullable column for every fact.

    Raises:
        CacheStaleError: there is no cache.
        CacheForeignError: it is torn or another site's.
    """
    try:
        return _table(config, read_manifest(config), RECORDS, columns=None).drop_columns(list(INTERNAL))
    except UNREADABLE as error:
        raise torn(cohort_folder(config)) from error


def refused_keys(config: SiteConfig) -> list[tuple[str, str]]:
    """(key, reason) of every recording that was read and refused, in the order of the table.

    Raises:
        CacheStaleError, CacheForeignError: as ``record_table``.
    """
    try:
        table = _table(config, read_manifest(config), RECORDS, columns=["key", "reason"])
    except UNREADABLE as error:
        raise torn(cohort_folder(config)) from error
    pairs = zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return [(key, reason) for key, reason in pairs if reason is not None]


def summary(cohort: Cohort) -> dict[str, Any]:
    """Counts of a cohort by split, for people; holds no value of any one person.

    ``cines`` and ``pairs`` count 4-chamber cines, which the phases use; ``views`` the other kept views.
    """
    cines = cohort.items("4ch")
    needs = {"ecg": cohort.row_ecg >= 0, "cine": cines >= 0,
             "phenotypes": ~np.isnan(cohort.phenotypes).all(axis=1)}  # fmt: skip
    report: dict[str, Any] = {"site": cohort.site, "digest": cohort.digest, "refusals": dict(cohort.refusals)}
    for index, name in enumerate(SPLITS):
        here = cohort.row_split == index
        report[name] = {
            "patients": cohort.patients(np.flatnonzero(here)),
            "recordings": int((here & needs["ecg"]).sum()),
            "cines": len(np.unique(cines[here & needs["cine"]])),
            "pairs": int((here & needs["ecg"] & needs["cine"]).sum()),
            "phenotype_rows": int((here & needs["phenotypes"]).sum()),
            "views": {
                view: len(np.unique(items[here & (items >= 0)]))
                for view, items in cohort.row_views.items()
                if view != "4ch"
            },
        }
    return report


def _table(config: SiteConfig, manifest: Manifest, name: str, *, columns: list[str] | None) -> pa.Table:
    content = regular_file(cohort_folder(config) / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.tables[name]:
        raise ValueError("another content")
    return parquet_table(content, columns=columns)


def _verify(
    config: SiteConfig,
    manifest: Manifest,
    column: dict[str, np.ndarray],
    *,
    digests: list[str],
    maps: dict[str, np.ndarray],
) -> None:
    """Compare labels and every recording with their digests, the latter in the order of the disk."""
    for name in (PHENOTYPES, DISEASES):
        with regular_file(cohort_folder(config) / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != manifest.tables[name]:
                raise ValueError("another content")
    for row in np.lexsort([column[name] for name in ("item_4ch", "ecg_offset")]):
        if not digests[row]:
            continue
        arrays: dict[str, np.ndarray] = {}
        if (samples := int(column["ecg_samples"][row])) > 0:
            start = int(column["ecg_offset"][row]) * len(LEADS)
            arrays["ecg"] = maps["ecg"][start : start + samples * BYTES_A_SAMPLE // 2]
        if (start := int(column["signature_start"][row])) >= 0:
            arrays["signature"] = maps["signatures"][start : start + _SIGNATURE_BYTES]
        for view in VIEWS:
            if (item := int(column[f"item_{view}"][row])) >= 0:
                arrays[view] = maps["cines"][item]
        if packed_digest(arrays) != digests[row]:
            raise ValueError("another content")
