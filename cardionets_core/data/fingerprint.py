"""What a cache was made from, as digests that tell nothing of it (step 4 of the walk).

The chain (code and settings that shape the packed bytes) voids the store when it changes. The rest asks only
for a new publication: shares of the splits, tables, lists of those who have withdrawn, the listing of files.
Names of files hold identifiers, so only keyed HMACs of them are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.pseudonym import keyed_digest
from cardionets_core.data.sources import Source

WITHDRAWALS = "withdrawals"
"""Key of ``Source.tables`` under which lists of people who have withdrawn stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Digests in hex.

    Attributes:
        key: HMAC of a constant: tells whether the same key made the pseudonyms.
        chain: SHA-256 of what shapes the packed bytes: code of this package, settings of the source, views.
        settings: SHA-256 of what shapes the publication alone: shares of the splits.
        withdrawals: HMAC of name, size and time of change of the lists of people who have withdrawn.
        tables: the same of all other tables.
        listing: HMAC of the same of every recording's files; empty where it was not asked for.
    """

    key: str
    chain: str
    settings: str
    withdrawals: str
    tables: str
    listing: str


def fingerprint(config: SiteConfig, *, key: bytes, source: Source, listing: str = "") -> Fingerprint:
    """Digests of the present state.

    Args:
        config: of the site.
        key: of the site.
        source: names its tables and settings; its recordings are not listed here, which is quick.
        listing: digest of the listing, if it was taken. Whoever relies on it takes it after this call.

    Raises:
        FolderMissingError, SourceInvalidError: a table is not there.
    """
    chain = {"source": source.settings(), "views": sorted(config.prepare.views), "code": code_digest()}
    tables = source.tables()
    return Fingerprint(
        key=keyed_digest(key, "key-check", ""),
        chain=_digest(chain),
        settings=_digest(config.prepare.split.model_dump(mode="json")),
        withdrawals=_state([path for name, path in tables if name == WITHDRAWALS], key=key),
        tables=_state([path for name, path in tables if name != WITHDRAWALS], key=key),
        listing=listing,
    )


def code_digest() -> str:
    """SHA-256 of every module of the data package: any change of the chain makes older caches void."""
    return _code_digest(Path(__file__).resolve().parent)


@lru_cache(maxsize=1)
def _code_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _state(paths: list[Path], *, key: bytes) -> str:
    digest = hmac.new(key, b"tables", hashlib.sha256)
    for path in sorted(paths):
        state = path.stat()
        text = f"{len(path.name)}:{path.name}:{state.st_size}:{state.st_mtime_ns}\n"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
