"""The log of the store: one line a recording, each with its own checksum (step 4 of the walk).

    {"schema": 1, "site": ..., "key": ..., "chain": ..., "files": {...}, "ends": {...}, "sum": ...}
    {"key": ..., "stamp": ..., "content": ..., "kind": "ecg", "places": {"ecg": [0, 60000], ...}, "sum": ...}
    {"key": ..., "kind": "ecg", "gone": true, "sum": ...}
    {"synced": true, "sum": ...}

The first line says whose the store is and which files belong to it. A later line of a recording stands for
the earlier ones. A line names no person, file or date: only keyed HMACs. A last line that is torn was being
written when the process was killed, and is dropped; a torn line before it means that the log is not to be
trusted at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from cardionets_core.data.storage import regular_file

SCHEMA = 1
_encode = json.JSONEncoder(separators=(",", ":")).encode
_MARK = b',"sum":"'
LONGEST_LINE = 1 << 20
LARGEST_PLACE_BYTES = 1 << 30
LARGEST_FILE_BYTES = 1 << 48
_FILE = re.compile(r"[a-z]{1,20}-\d{1,9}\.bin")
SYNCED: dict[str, Any] = {"synced": True}


class LogTornError(ValueError):
    """The log cannot be trusted; the store starts again from nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first line.

    Attributes:
        schema: of the log.
        site: name of the site.
        key: HMAC of a constant: tells whether the same key made the rest.
        chain: digest of the code and settings that shape the bytes.
        files: part of the store to the name of its file.
        ends: part of the store to bytes that have been announced; a file is never cut below them, for
            someone may hold a map of it.
    """

    schema: int = SCHEMA
    site: str
    key: str
    chain: str
    files: dict[str, str]
    ends: dict[str, int]

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Head:
        """From a parsed line. The files are opened for writing: a name may not lead out of the folder.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is no first line of ours.
        """
        head = cls(**content)
        ends = all(type(end) is int and 0 <= end <= LARGEST_FILE_BYTES for end in head.ends.values())
        files = all(_FILE.fullmatch(name) for name in head.files.values())
        words = all(isinstance(word, str) for word in (head.site, head.key, head.chain))
        if not (ends and files and words and head.ends.keys() == head.files.keys()):
            raise ValueError("not the head of a log")
        return head


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the store holds of one recording.

    Attributes:
        key: keyed HMAC of what the hospital calls the recording.
        stamp: keyed HMAC of name, size and time of its files when they were read.
        content: keyed HMAC of their bytes; empty where they could not be read.
        kind: ``ecg`` or ``cine``.
        reason: of ``REFUSAL_REASONS``; empty where accepted.
        flags: doubts that did not stop it.
        facts: name to number or word, for the report.
        places: ``ecg``, ``signature`` or a view to (first byte, bytes) in its file.
        digest: SHA-256 of the packed bytes; empty where refused.
        gone: the recording may not be held any more, whatever earlier lines say.
    """

    key: str
    kind: Literal["ecg", "cine"]
    stamp: str = ""
    content: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()
    facts: dict[str, float | str] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    digest: str = ""
    gone: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the store holds its bytes."""
        return not self.reason

    def line(self) -> bytes:
        """Its line of the log."""
        return log_line({name: value for name in _FIELDS if (value := getattr(self, name))})

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Entry:
        """From a parsed line; the words that many entries share are kept once.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is no line of ours.
        """
        intern = sys.intern
        entry = cls(
            key=content["key"],
            kind="ecg" if content["kind"] == "ecg" else "cine",
            stamp=content.get("stamp", ""),
            content=content.get("content", ""),
            reason=intern(content.get("reason", "")),
            flags=tuple(intern(flag) for flag in content.get("flags", ())),
            facts={intern(name): value for name, value in content.get("facts", {}).items()},
            places={
                intern(name): (start, length) for name, (start, length) in content.get("places", {}).items()
            },
            digest=content.get("digest", ""),
            gone=content.get("gone", False),
        )
        words = (entry.key, entry.stamp, entry.content, entry.digest)
        facts = (type(value) in (str, int, float) for value in entry.facts.values())
        places = (
            type(start) is type(length) is int
            and 0 <= start <= LARGEST_FILE_BYTES
            and 0 <= length <= LARGEST_PLACE_BYTES
            for start, length in entry.places.values()
        )
        if not (all(isinstance(word, str) for word in words) and all(facts) and all(places)):
            raise ValueError("not an entry of a log")
        return entry


_FIELDS = tuple(entry_field.name for entry_field in fields(Entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLog:
    """What a log holds.

    Attributes:
        head: its first line.
        entries: in the order of the lines.
        synced: how many of the entries were on the disk for sure, with their bytes.
        good_bytes: length of the log without a torn last line.
    """

    head: Head
    entries: list[Entry]
    synced: int
    good_bytes: int


def log_line(content: dict[str, Any]) -> bytes:
    """A line of JSON that ends with the checksum of what stands before it."""
    text = _encode(content)[:-1].encode()
    return text + _MARK + _checksum(text) + b'"}\n'


def parse_line(line: bytes) -> dict[str, Any]:
    """The content of a line.

    Raises:
        ValueError: it is torn.
    """
    text, mark, rest = line.rpartition(_MARK)
    if not mark or rest != _checksum(text) + b'"}\n':
        raise ValueError("torn line")
    try:
        content = json.loads(text + b"}")
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("not an object")
    return content


def read_log(path: Path) -> ReadLog:
    """Read a log to the end.

    Raises:
        FileNotFoundError: there is none.
        LogTornError: it is damaged in more than its last line, of another schema, or no file.
    """
    if path.exists() and not path.is_file():
        raise LogTornError("not a file")
    head: Head | None = None
    entries: list[Entry] = []
    good_bytes = synced = 0
    with path.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            try:
                content = parse_line(line)
                if head is None:
                    head = Head.from_content(content)
                    if head.schema != SCHEMA:
                        raise LogTornError("another schema")
                elif content == SYNCED:
                    synced = len(entries)
                else:
                    entries.append(Entry.from_content(content))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if head is None or stream.read(1):
                    raise LogTornError("a line before the last is torn") from error
                break
            good_bytes += len(line)
    if head is None:
        raise LogTornError("empty")
    return ReadLog(head=head, entries=entries, synced=synced, good_bytes=good_bytes)


def read_head(path: Path) -> Head | None:
    """The first line of a log; None where there is none that can be read."""
    try:
        with regular_file(path).open("rb") as stream:
            return Head.from_content(parse_line(stream.readline(LONGEST_LINE)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def whole_log(head: Head, entries: Iterable[Entry]) -> Iterator[bytes]:
    """A log without history: the head, a line for each entry, and that all of it is on the disk."""
    yield log_line(asdict(head))
    for entry in entries:
        yield entry.line()
    yield log_line(SYNCED)


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode()
