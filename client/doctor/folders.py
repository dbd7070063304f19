"""Are the paths of ``site.yaml`` there, may they be read, may the site's own folders be written?

Comes in: the site's document. Goes out: all paths that are wrong, at once, by the key that names them. Makes
no folder and no file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.pseudonym import load_key
from cardionets_core.errors import CardioNetsError, DataError, FolderMissingError, PrivacyError
from client.doctor.findings import Findings

GROUP_OR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_folders(config: SiteConfig) -> Findings:
    """Sources readable; cache, state and secret folders writable; the key for this account's eyes only."""
    findings = Findings()
    sources = dict(_paths(config.source, "source"))
    for key, path in sources.items():
        _add(findings, _unreadable(key, path))
    own = {"folders.cache": config.folders.cache, "folders.state": config.folders.state,
           "folders.secret": config.folders.secret.parent}  # fmt: skip
    for key, path in own.items():
        _add(findings, _unwritable(key, path))
    _add(findings, _no_key(config.folders.secret))
    _add(findings, exposed_key(config.folders.secret))
    findings.facts = {
        "sources_readable": len(sources) - sum(isinstance(p, FolderMissingError) for p in findings.problems),
        "sources": len(sources),
        "key": _state_of_key(config.folders.secret),
    }
    return findings


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def exposed_key(key: Path) -> PrivacyError | None:
    """The problem of a key that others may read: they could test whether a known patient is in the cache."""
    if not key.is_file() or not key.stat().st_mode & GROUP_OR_OTHERS:
        return None
    return PrivacyError(
        f"the key of the pseudonyms may be read or written by others (mode {key.stat().st_mode & 0o777:04o})",
        where="site.yaml: folders.secret",
        remedy=f"chmod 600 {key}",
    )


def _add(findings: Findings, problem: CardioNetsError | None) -> None:
    if problem is not None:
        findings.problems.append(problem)


def _paths(document: object, key: str) -> Iterator[tuple[str, Path]]:
    """Every path of a part of the document, with its dotted key."""
    if isinstance(document, Path):
        yield key, document
    elif isinstance(document, tuple):
        for place, item in enumerate(document):
            yield from _paths(item, f"{key}.{place}")
    else:
        for name in getattr(type(document), "model_fields", ()):
            yield from _paths(getattr(document, name), f"{key}.{name}")


def _unreadable(key: str, path: Path) -> FolderMissingError | None:
    where = f"site.yaml: {key}"
    if not path.exists():
        return FolderMissingError(
            f"there is no file or folder {path}", where=where, remedy="mend the path, or mount its disk"
        )
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return FolderMissingError(
            f"this account may not read {path}", where=where,
            remedy="give the account that runs CardioNets the right to read it; it needs no right to write",
        )  # fmt: skip
    return None


def _unwritable(key: str, path: Path) -> DataError | None:
    there = existing(path)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    what = f"this account may not write to {there}" if there.is_dir() else f"{there} is not a folder"
    return DataError(what, where=f"site.yaml: {key}", remedy="name a folder that this account may write to")


def _no_key(path: Path) -> DataError | None:
    """What stands in the key's place and is none."""
    if not os.path.lexists(path):
        return None
    try:
        load_key(path)
    except DataError as error:
        return error
    return None


def _state_of_key(path: Path) -> str:
    if not path.exists():
        return "not made yet: prepare makes it"
    return "present" if _no_key(path) is None else "cannot be used"
