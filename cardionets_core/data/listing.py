"""What a source lists, as keys and stamps that tell nothing of it (step 3 of the walk).

Comes in: a source. Goes out: for each recording a key (which recording it is), a stamp (whether its files
look unchanged) and, on request, the keyed digest of their bytes (whether they are). Nothing is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.data.records import Recording
from cardionets_core.data.sources import Source
from cardionets_core.data.storage import regular_file

_HEX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All recordings of a source at one moment.

    Attributes:
        recordings: key to recording, in the order of the source.
        stamps: key to stamp.
        digest: over all keys and stamps: equal as long as no file seems to have changed.
    """

    recordings: dict[str, Recording]
    stamps: dict[str, str]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the folders say of a recording's files; none of them is opened.

    Attributes:
        stamp: HMAC of name, folder, size and time of change of every file, and whether it may be read.
        size_mark: HMAC of their sizes; stands for the content of what is too large to be read.
        total_bytes: of all files.
    """

    stamp: str
    size_mark: str
    total_bytes: int


def take_listing(source: Source, *, key: bytes) -> Listing:
    """List a source.

    Args:
        source: whose files are looked at, not read.
        key: the site's.

    Raises:
        FolderMissingError, SourceInvalidError: the source cannot list its files.
    """
    recordings = recording_keys(source.recordings(), key=key)
    stamps = {name: look_at(source, recording, key=key).stamp for name, recording in recordings.items()}
    digest = hmac.new(key, b"listing", hashlib.sha256)
    for name in sorted(stamps):
        digest.update(f"{name}:{stamps[name]}\n".encode())
    return Listing(recordings=recordings, stamps=stamps, digest=digest.hexdigest())


def recording_keys(recordings: Iterable[Recording], *, key: bytes) -> dict[str, Recording]:
    """Key of each recording: kind, person, visit and file name, so that a moved folder changes nothing.

    Files of one name in several folders of a visit are told apart by as much of their path as it takes. A
    recording that is listed twice counts once.
    """
    named: dict[tuple[str, str, str, str], list[Recording]] = {}
    for recording in dict.fromkeys(recordings):
        name = (recording.kind, recording.patient, recording.visit, recording.path.name)
        named.setdefault(name, []).append(recording)
    keys: dict[str, Recording] = {}
    for (kind, patient, visit, _), group in named.items():
        for recording, tail in zip(group, _tails([recording.path for recording in group]), strict=True):
            keys[_mac(key, "recording", kind, patient, visit, tail)] = recording
    return keys


def content_digest(source: Source, recording: Recording, *, key: bytes) -> str:
    """Keyed HMAC of the bytes of a recording's files; empty where one cannot be read."""
    digest = hmac.new(key, b"content", hashlib.sha256)
    try:
        for path in _files(source.parts(recording)):
            with regular_file(path).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError:
        return ""
    return digest.hexdigest()[:_HEX]


def look_at(source: Source, recording: Recording, *, key: bytes) -> Look:
    """Ask the folders for a recording's files."""
    seen, sizes = [], []
    with contextlib.suppress(OSError):  # a folder that may not be entered, a file that went away just now
        for path in _files(source.parts(recording)):
            state = path.stat()
            readable = os.access(path, os.R_OK)
            seen.append(f"{path.parent.name}/{path.name}:{state.st_size}:{state.st_mtime_ns}:{readable}")
            sizes.append(state.st_size)
    return Look(
        stamp=_mac(key, "stamp", *seen),
        size_mark=_mac(key, "sizes", *map(str, sizes)),
        total_bytes=sum(sizes),
    )


def _files(parts: Iterable[Path]) -> Iterable[Path]:
    """The files themselves; a folder that is one recording stands for all that it holds."""
    for path in parts:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.is_file())
        else:
            yield path


def _tails(paths: list[Path]) -> list[str]:
    """The shortest ends of some paths, of equal depth, that differ from each other."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        tails = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(tails)) == len(tails):
            return tails
    return [path.as_posix() for path in paths]


def _mac(key: bytes, *words: str) -> str:
    """Hex HMAC of some words; no two different lists of words give one message."""
    message = "".join(f"{len(word)}:{word}" for word in words).encode("utf-8", "surrogateescape")
    return hmac.digest(key, message, "sha256").hex()[:_HEX]
