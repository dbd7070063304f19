"""Opening the files of tables and lists, with bounds (step 2 of the walk).

Comes in: a path of ``site.yaml``. Goes out: a stream of text that stops with a typed error at what no table
holds, or the permission to hand a Parquet file to its library. Knows no columns; errors name the key of the
document and never quote the file.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cardionets_core.data.sources.base import require_file
from cardionets_core.errors import FolderMissingError, SourceInvalidError

MAXIMUM_TABLE_BYTES = 32_000_000_000
"""A whole basket of UK Biobank stays under it."""
MAXIMUM_LIST_BYTES = 20_000_000
"""Two million identifiers."""
MAXIMUM_LINE_BYTES = 4_000_000
"""Thirty thousand columns under their full titles stay under it."""
MAXIMUM_PIECE_BYTES = 1_000_000_000
"""Of text behind one piece of a table; a quotation mark that nothing closes would take all the rest."""
MAXIMUM_FOOTER_BYTES = 256_000_000
_LOOKED_AT_BYTES = 1_000_000
_PARQUET = b"PAR1"
_MARKS = {
    b"\xff\xfe": "is UTF-16 text",
    b"\xfe\xff": "is UTF-16 text",
    b"PK\x03\x04": "is an Excel or zip file",
    b"\x1f\x8b": "is compressed",
    _PARQUET: "is a Parquet file under another ending",
}
_AS_TEXT = "export it as plain UTF-8 text, not compressed"


class BoundedStream(io.RawIOBase):
    """Bytes of a text file, read in order; an error in place of a NUL byte, an endless line or piece.

    ``begin_piece`` is called after each piece of the table, from which on its bytes are counted anew.
    """

    def __init__(self, stream: IO[bytes], *, key: str) -> None:
        """Take over an open file; ``key`` of the site's document is for errors."""
        self._stream = stream
        self._key = key
        self._in_line_bytes = 0
        self._in_piece_bytes = 0

    def begin_piece(self) -> None:
        """Count the bytes of a piece from here."""
        self._in_piece_bytes = 0

    def readable(self) -> bool:
        """True, as ``io`` asks."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; 0 at the end of the file.

        Raises:
            SourceInvalidError: the bytes hold a NUL byte, or a line or piece has become too long.
        """
        found = self._stream.read(min(len(buffer), _LOOKED_AT_BYTES))
        if b"\0" in found:
            raise _no_text("holds bytes that no text holds", key=self._key)
        line_end = max(found.rfind(b"\n"), found.rfind(b"\r"))
        self._in_line_bytes = len(found) - line_end - 1 + (self._in_line_bytes if line_end < 0 else 0)
        self._in_piece_bytes += len(found)
        if self._in_line_bytes > MAXIMUM_LINE_BYTES or self._in_piece_bytes > MAXIMUM_PIECE_BYTES:
            raise SourceInvalidError(
                "a row of the table never ends", where=f"site.yaml: {self._key}",
                remedy="end every line, and close every quotation mark",
            )  # fmt: skip
        buffer[: len(found)] = found
        return len(found)


@contextlib.contextmanager
def open_text(
    path: Path, *, key: str, limit_bytes: int = MAXIMUM_TABLE_BYTES
) -> Iterator[tuple[io.TextIOWrapper, BoundedStream]]:
    """A text file as UTF-8, with or without a byte-order mark, and the stream under it.

    Raises:
        FolderMissingError: there is no such file, it is no plain file, or it may not be read.
        SourceInvalidError: it is larger than ``limit_bytes``, or other than text by its first million bytes.
    """
    with _opened(path, key=key, limit_bytes=limit_bytes) as stream:
        start = stream.read(_LOOKED_AT_BYTES)
        for mark, what in _MARKS.items():
            if start.startswith(mark):
                raise _no_text(what, key=key)
        if b"\0" in start:
            raise _no_text("holds bytes that no text holds: it may be UTF-16", key=key)
        stream.seek(0)
        bounded = BoundedStream(stream, key=key)
        with io.TextIOWrapper(io.BufferedReader(bounded), encoding="utf-8-sig", newline="") as text:
            yield text, bounded


def require_parquet(path: Path, *, key: str) -> Path:
    """The path, if it is a plain file with the marks and the footer of Parquet.

    Raises:
        FolderMissingError: there is no such file, it is no plain file, or it may not be read.
        SourceInvalidError: it is too large, or no Parquet.
    """
    with _opened(path, key=key, limit_bytes=MAXIMUM_TABLE_BYTES) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - 8))
        end = stream.read(8)
        stream.seek(0)
        footer_bytes = int.from_bytes(end[:4], "little")
        is_marked = stream.read(4) == _PARQUET == end[4:]
    if not is_marked or not 0 < footer_bytes <= min(size - 12, MAXIMUM_FOOTER_BYTES):
        raise SourceInvalidError(
            "the table is no whole Parquet file", where=f"site.yaml: {key}",
            remedy="export it again; a CSV table needs the ending .csv",
        )  # fmt: skip
    return path


@contextlib.contextmanager
def _opened(path: Path, *, key: str, limit_bytes: int) -> Iterator[IO[bytes]]:
    try:
        stream = require_file(path, key=key).open("rb")
    except OSError:
        raise FolderMissingError(
            f"{path} may not be read",
            where=f"site.yaml: {key}",
            remedy="give this account the right",
        ) from None
    with stream:
        size = stream.seek(0, io.SEEK_END)
        if size > limit_bytes:
            raise SourceInvalidError(
                f"the file has {size:,} bytes; at most {limit_bytes:,} are read", where=f"site.yaml: {key}",
                remedy="name the right file, or export only the columns that are read",
            )  # fmt: skip
        stream.seek(0)
        yield stream


def _no_text(what: str, *, key: str) -> SourceInvalidError:
    return SourceInvalidError(f"the file {what}", where=f"site.yaml: {key}", remedy=_AS_TEXT)
