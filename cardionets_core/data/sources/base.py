"""What every source offers (step 2 of the walk)."""

from __future__ import annotations

import stat
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from cardionets_core.data.records import Person, Read, Recording
from cardionets_core.errors import FolderMissingError


class Source(Protocol):
    """A data adapter: from folders and tables to recordings.

    It is made from its part of ``site.yaml`` alone and opens files only when asked, so that it can be sent
    to a worker process for the price of its paths.

    It is made of its document and of the views that the site keeps (``prepare.views``): recordings that can
    hold none of them are not listed.

    Attributes:
        refusals: reason to number of recordings that ``recordings`` left out, ``withdrawn`` for one.
        notes: doubt to number of rows of the tables, ``time-differs`` for one; counts only, never rows. The
            tables are read when ``person`` is first asked, so they are complete from then on.
    """

    refusals: Counter[str]
    notes: Counter[str]

    def recordings(self) -> list[Recording]:
        """Everything that may be read, withdrawals removed.

        Raises:
            FolderMissingError: a path of the document is not there; names the key.
            SourceInvalidError: the layout is not the one that this source reads.
        """
        ...

    def read(self, recording: Recording) -> Read:
        """Read one recording.

        Raises:
            RecordRefused: with its reason.
        """
        ...

    def parts(self, recording: Recording) -> list[Path]:
        """The files that a recording is made of, as far as they are there: header and signals, say."""
        ...

    def person(self, patient: str, visit: str) -> Person:
        """What the tables say of one visit; an empty ``Person`` where they say nothing."""
        ...

    def tables(self) -> list[tuple[str, Path]]:
        """(key of the document, path) of every table and list: what people are, not what signals are.

        A key that names several tables stands several times.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """JSON-ready: what of the document changes how a recording is read (formats, units); no paths."""
        ...


def require_folder(path: Path, *, key: str) -> Path:
    """The path, if it is a folder.

    Raises:
        FolderMissingError: names the key of the document.
    """
    if not path.is_dir():
        raise FolderMissingError(
            f"there is no folder {path}",
            where=f"site.yaml: {key}",
            remedy="mend the path, or mount the folder",
        )
    return path


def require_file(path: Path, *, key: str) -> Path:
    """The path, if it is a plain file: opening a pipe would wait for ever, and a device has no end.

    Raises:
        FolderMissingError: names the key of the document.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path
        what = f"{path} is no plain file"
    except (FileNotFoundError, NotADirectoryError):
        what = f"there is no file {path}"
    except (OSError, ValueError):
        what = f"{path} cannot be reached"
    raise FolderMissingError(what, where=f"site.yaml: {key}", remedy="mend the path, or mount its folder")


def beside(path: Path, name: str) -> Path | None:
    """The file that a table names inside a folder; None where the name is empty or leads out of it."""
    if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        return None
    return path / name


def wfdb_companions(header: Path) -> list[Path]:
    """The header and the signal files beside it, as far as they are there."""
    found = [header] if header.is_file() else []
    return found + [path for suffix in (".dat", ".mat") if (path := header.with_suffix(suffix)).is_file()]
