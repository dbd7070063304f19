"""Pseudonyms: a keyed HMAC of what a hospital calls a person (step 3 of the walk).

The key is 32 random bytes in a file that only the site's account may read. Without it nobody can test
whether a given identifier is in a cache; two sites never share one, so their pseudonyms cannot be joined.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from cardionets_core.errors import CacheForeignError, DataError

KEY_BYTES = 32


def load_key(path: Path) -> bytes:
    """The site's key.

    Raises:
        DataError: the file is absent, unreadable, not a file or not of 32 bytes.
    """
    try:
        if os.path.lexists(path) and not path.is_file():
            raise DataError(
                "the key of the pseudonyms must be a file",
                where=f"folders.secret: {path}",
                remedy="name a file in folders.secret, or take away what lies there in its place",
            )
        with path.open("rb") as stream:
            key = stream.read(KEY_BYTES + 1)
    except OSError as error:
        raise DataError(
            "the key of the pseudonyms cannot be read",
            where=f"folders.secret: {path}",
            remedy="run `prepare` to make one, or restore it from the site's backup",
        ) from error
    if len(key) != KEY_BYTES:
        raise DataError(
            f"the key of the pseudonyms must have {KEY_BYTES} bytes",
            where=f"folders.secret: {path}",
            remedy="restore it from the site's backup; a new key gives new pseudonyms and new splits",
        )
    return key


def ensure_key(path: Path) -> bytes:
    """The site's key, made with mode 0600 where there is none; an existing file is never written to.

    Raises:
        DataError: the file exists and is not a key, or cannot be made.
    """
    if os.path.lexists(path):
        return load_key(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(KEY_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its key stands
                os.link(name, path)
        finally:
            Path(name).unlink()
    except OSError as error:
        raise DataError(
            f"the key of the pseudonyms cannot be made: {error.strerror}",
            where=f"folders.secret: {path}",
            remedy="name a folder that this account may write to",
        ) from error
    return load_key(path)


def keyed_digest(key: bytes, kind: str, content: str) -> str:
    """Hex HMAC-SHA256 of (kind, content); no two different pairs give one message.

    Bytes of a file name that are not UTF-8 count as they are.
    """
    message = f"{len(kind)}:{kind}:{content}".encode("utf-8", "surrogateescape")
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def pseudonym(key: bytes, patient: str) -> str:
    """32 hex digits that stand for a person in this site's cache."""
    return keyed_digest(key, "patient", patient)[:32]


def other_key(cache: Path) -> CacheForeignError:
    """The error for a cache that was made with another key."""
    return CacheForeignError(
        "the cache was made with another key of the pseudonyms", where=f"folders.cache: {cache}",
        remedy="restore the key of folders.secret from the site's backup; if a new key is meant, which gives "
        f"new pseudonyms and new splits, delete the folder {cache}",
    )  # fmt: skip
