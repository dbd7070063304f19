"""What a cache was made from, as digests that tell nothing of it (step 4 of the walk).

Three parts: the settings and code of the transform chain, the listing of the site's files, and the key. The
listing holds file names, hence identifiers, so only its keyed HMAC is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cardionets_core.config.site import LocalSource, SiteConfig
from cardionets_core.data.pseudonym import keyed_digest
from cardionets_core.data.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Digests in hex.

    Attributes:
        key: HMAC of a constant: tells whether the same key made the pseudonyms.
        settings: SHA-256 of the settings that shape the bytes, and of the code of this package.
        listing: HMAC of name, size and time of change of every file; empty where it was not asked for.
    """

    key: str
    settings: str
    listing: str

    def as_dict(self) -> dict[str, str]:
        """For the manifest."""
        return asdict(self)


def fingerprint(config: SiteConfig, *, key: bytes, source: Source | None) -> Fingerprint:
    """Digests of the present state.

    Args:
        config: of the site.
        key: of the site.
        source: lists the files; None leaves the listing out, which is quick.

    Raises:
        FolderMissingError, SourceInvalidError: the source cannot list its files.
    """
    return Fingerprint(
        key=keyed_digest(key, "key-check", ""),
        settings=hashlib.sha256(f"{_settings(config)}\n{code_digest()}".encode()).hexdigest(),
        listing=_listing(source, key=key) if source is not None else "",
    )


def code_digest() -> str:
    """SHA-256 of every module of the data package: any change of the chain makes older caches stale."""
    folder = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _settings(config: SiteConfig) -> str:
    """Canonical JSON of what shapes the bytes; paths and the number of workers do not."""
    source = config.source
    ecg = source.ecg if isinstance(source, LocalSource) else None
    chosen = {
        "kind": source.kind,
        "ecg": None if ecg is None else {"format": ecg.format, "rate_hz": ecg.rate_hz, "unit": ecg.unit},
        "split": config.prepare.split.model_dump(mode="json"),
    }
    return json.dumps(chosen, sort_keys=True, separators=(",", ":"))


def _listing(source: Source, *, key: bytes) -> str:
    digest = hmac.new(key, b"listing", hashlib.sha256)
    for name, path in sorted(source.files()):
        state = path.stat()
        digest.update(
            f"{len(name)}:{name}:{state.st_size}:{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()
