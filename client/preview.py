"""What ``prepare`` would do: how many recordings it would read (``prepare --dry-run``).

Comes in: the site's document. Goes out: counts from the listing and the log of the store. Opens no recording,
makes no key and no cache.
"""

from __future__ import annotations

from typing import Any

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.fingerprint import fingerprint
from cardionets_core.data.listing import take_listing
from cardionets_core.data.manifest import refuse_other_key, refuse_other_site, store_folder
from cardionets_core.data.pseudonym import KEY_BYTES, load_key
from cardionets_core.data.sources import open_source
from cardionets_core.data.store import LOG
from cardionets_core.data.store_log import Entry, LogTornError, read_log

SCHEMA_VERSION = 1


def preview(config: SiteConfig) -> dict[str, Any]:
    """Counts of what is new, changed, gone and unchanged since the last prepare, finished or not.

    Args:
        config: of the site.

    Raises:
        FolderMissingError, SourceInvalidError: the source cannot list its files.
        CacheForeignError: the cache is another site's, or was made with another key.
        DataError: the key is there but cannot be used.
    """
    refuse_other_site(config)
    key = load_key(config.folders.secret) if config.folders.secret.exists() else bytes(KEY_BYTES)
    source = open_source(config)
    listing = take_listing(source, key=key)
    now = fingerprint(config, key=key, source=source, listing=listing.digest)
    refuse_other_key(config, now.key)
    entries, again = _held(config, chain=now.chain)
    new = listing.recordings.keys() - entries.keys()
    unchanged = {
        name
        for name, stamp in listing.stamps.items()
        if name in entries and entries[name].stamp == stamp and entries[name].content
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "site": config.site,
        "listed": len(listing.recordings),
        "patients": len({recording.patient for recording in listing.recordings.values()}),
        "new": len(new),
        "changed": len(listing.recordings) - len(new) - len(unchanged),
        "unchanged": len(unchanged),
        "gone": len(entries.keys() - listing.recordings.keys()),
        "left_out": dict(source.refusals),
        "again": again,
    }


def _held(config: SiteConfig, *, chain: str) -> tuple[dict[str, Entry], str]:
    """What the store holds that would be kept; and why not, where something else was held."""
    try:
        log = read_log(store_folder(config) / LOG)
    except FileNotFoundError:
        return {}, ""
    except LogTornError:
        return {}, "the log of the cache is damaged"
    if log.head.chain != chain:
        return {}, "settings or code have changed"
    held: dict[str, Entry] = {}
    for entry in log.entries:
        held[entry.key] = entry
    return {name: entry for name, entry in held.items() if not entry.gone}, ""
