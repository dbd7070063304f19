"""From a site's folders to its cache (steps 2 to 4 of the walk).

List, forget who is no longer there, read what is new, publish. Everything may be killed at any moment: the
store keeps what has been read, and the next run goes on from there. A recording that cannot be used is
counted by reason and never named.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import open_published
from cardionets_core.data.cache_writer import sole_writer, unpublish, write_publication
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.derived import forget_derived
from cardionets_core.data.duplicates import find_duplicates
from cardionets_core.data.fingerprint import Fingerprint, fingerprint
from cardionets_core.data.listing import Listing, take_listing
from cardionets_core.data.manifest import (
    cohort_folder,
    read_manifest,
    refuse_other_key,
    refuse_other_site,
    store_folder,
)
from cardionets_core.data.pack import packed_arrays
from cardionets_core.data.pseudonym import ensure_key
from cardionets_core.data.publish import Draft, compose
from cardionets_core.data.reading import Job, Outcome, read_all
from cardionets_core.data.records import LEADS
from cardionets_core.data.sources import Source, open_source
from cardionets_core.data.storage import writing_to
from cardionets_core.data.store import Store
from cardionets_core.data.store_log import Entry
from cardionets_core.errors import CacheForeignError, CacheStaleError

Progress = Callable[[str, int, int], None]


def prepare(config: SiteConfig, *, progress: Progress | None = None) -> Cohort:
    """Bring the cache of a site up to date, or open the one that is.

    Args:
        config: of the site.
        progress: told (stage, done, total) in recordings; the stages are ``list``, ``read`` and ``publish``.
            What was read by an earlier run counts as done from the start.

    Returns:
        The opened cache. It may hold nobody: whether there are enough people is the caller's question.

    Raises:
        FolderMissingError: a path of the document is not there.
        SourceInvalidError: the files are not laid out as the source reads them.
        CacheForeignError: the cache's folder holds the cache of another site or key.
        DataError: the key or the cache's folder cannot be used, the disk is full, or a worker died; what has
            been read by then is kept.
    """
    tell = progress or (lambda stage, done, total: None)
    with sole_writer(cohort_folder(config)):
        refuse_other_site(config)
        if not os.path.lexists(config.folders.secret):
            refuse_other_key(config, "")  # a new key in the place of the lost one would only be in the way
        key = ensure_key(config.folders.secret)
        source = open_source(config)
        # Looked at before they are read: a list that grows in this very moment makes the cache stale.
        now = fingerprint(config, key=key, source=source)
        listing = take_listing(source, key=key)
        refuse_other_key(config, now.key)
        now = replace(now, listing=listing.digest)
        tell("list", len(listing.recordings), len(listing.recordings))
        damaged, held = False, {}
        try:
            manifest = read_manifest(config)
            held = dict(manifest.files.values())
            if not manifest.counts["unread"]:
                cohort = open_published(config, now=now, verify=True)
                forget_derived(config, but_of=cohort.digest)
                return cohort
        except CacheStaleError:
            pass
        except CacheForeignError:
            damaged = True
        with (
            writing_to(config.folders.cache),
            Store(
                store_folder(config),
                site=config.site,
                key=now.key,
                chain=now.chain,
                unpublish=partial(unpublish, config),
                held=held,
            ) as store,
        ):
            while True:
                if damaged:
                    store.forget(store.damaged())
                # Whoever is no longer listed is gone before anything else happens, derived arrays included.
                forget_derived(config)
                store.forget(store.entries.keys() - listing.recordings.keys())
                store.settle()
                _read_new(config, store, listing=listing, key=key, tell=tell)
                store.settle()
                _publish(config, store, listing=listing, key=key, source=source, now=now, tell=tell)
                try:
                    return open_published(config, now=now, verify=True)
                except CacheForeignError:  # damage that hid behind other changes
                    if damaged:
                        raise
                    damaged = True


def _read_new(config: SiteConfig, store: Store, *, listing: Listing, key: bytes, tell: Progress) -> None:
    """Bring the store's entries up to the listing."""
    jobs = []
    for name, recording in listing.recordings.items():
        entry = store.entries.get(name)
        if entry is None:
            jobs.append(Job(key=name, recording=recording))
        elif entry.stamp != listing.stamps[name] or not entry.content:
            jobs.append(Job(key=name, recording=recording, content=entry.content))
    total = len(listing.recordings)
    done = total - len(jobs)
    tell("read", done, total)
    for outcome in read_all(config, jobs, key=key):
        _keep(store, outcome, listing=listing)
        done += 1
        tell("read", done, total)


def _keep(store: Store, outcome: Outcome, *, listing: Listing) -> None:
    stamp, packed = listing.stamps[outcome.key], outcome.packed
    if packed is None:
        store.put(replace(store.entries[outcome.key], stamp=stamp))
        return
    entry = Entry(
        key=outcome.key,
        kind=listing.recordings[outcome.key].kind,
        stamp=stamp,
        content=outcome.content,
        reason=packed.reason,
        flags=tuple(packed.flags),
        facts=packed.facts,
        digest=outcome.digest,
    )
    store.put(entry, packed_arrays(packed))


def _publish(
    config: SiteConfig,
    store: Store,
    *,
    listing: Listing,
    key: bytes,
    source: Source,
    now: Fingerprint,
    tell: Progress,
) -> None:
    tell("publish", 0, len(listing.recordings))
    store.sync()  # a publication never shows what a power cut could still take
    draft = compose(config, key=key, listing=listing, entries=store.entries, source=source)
    ends = store.ends
    write_publication(
        config,
        draft,
        fingerprint=now,
        files={part: (name, ends[part]) for part, name in store.files.items()},
        left_out=source.refusals,
        notes=source.notes,
        warnings=_warnings(draft, store),
        unread=sum(not entry.content for entry in store.entries.values()),
    )
    tell("publish", len(listing.recordings), len(listing.recordings))


def _warnings(draft: Draft, store: Store) -> dict[str, int]:
    """Recordings that stand under two people, by their number: who they are stays unsaid."""
    column = draft.records
    places = [number for number, samples in enumerate(column["ecg_samples"]) if samples]
    held = [store.entries[column["key"][number]] for number in places]
    if not held:
        return {}
    _, patients = np.unique([column["pseudonym"][number] for number in places], return_inverse=True)
    _, splits = np.unique([column["split"][number] for number in places], return_inverse=True)
    found = find_duplicates(
        np.stack([store.read(entry, "signature", "<f4") for entry in held]),
        patients,
        lambda place: store.read(held[place], "ecg", "<i2").reshape(len(LEADS), -1),
        splits=splits,
    )
    return {
        "near-duplicates": len(found.pairs),
        "near-duplicate-patients": found.patients,
        "near-duplicates-across-splits": found.across_splits,
    }
