"""Where predictions are written: the files of synthetic cines, and the page. Nothing is written over.

Comes in: what the command line names. Goes out: files for this account's eyes only, named by the number of
their recording, since a hospital's file names may name a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.errors import UsageError
from client.predict.cine import ENDINGS, SyntheticCine, cine_files
from client.predict.reading import Named
from client.private_file import write_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What is to be written.

    Attributes:
        folder: of the cines; None writes none.
        page: of the HTML page; None writes none.
        replace: whether files that are there may be replaced.
    """

    folder: Path | None = None
    page: Path | None = None
    replace: bool = False

    @property
    def shows_cines(self) -> bool:
        """Whether a cine would be seen anywhere."""
        return self.folder is not None or self.page is not None

    def check(self, named: Sequence[Named]) -> None:
        """Refuse before anything is computed.

        Raises:
            UsageError: a file is there already, or a folder is not.
        """
        if self.page is not None and not self.page.parent.is_dir():
            raise UsageError(
                "there is no such folder",
                where=str(self.page.parent),
                remedy="make it, or name another --page",
            )
        wanted = [] if self.page is None else [self.page]
        if self.folder is not None:
            wanted += [self.folder / name for each in named for name in cine_names(each.number)]
        there = [path for path in wanted if path.exists()]
        if there and not self.replace:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise UsageError(
                f"{there[0]}{more} is there already", remedy="name another place, or give --replace"
            )

    def write_cine(self, number: str, cine: SyntheticCine | None) -> list[str]:
        """Write the files of one cine; returns their names.

        Raises:
            UsageError: they cannot be written there.
        """
        if self.folder is None or cine is None:
            return []
        contents = cine_files(cine)
        for ending, name in zip(ENDINGS, cine_names(number), strict=True):
            _write(self.folder / name, contents[ending], make_folder=True)
        return cine_names(number)

    def write_page(self, text: str) -> None:
        """Write the page, where one is wanted; raises as ``write_cine`` does."""
        if self.page is not None:
            _write(self.page, text.encode())


def cine_names(number: str) -> list[str]:
    """Names of the files of one recording's cine, in the order of ``ENDINGS``."""
    return [f"recording-{number}-synthetic.{ending}" for ending in ENDINGS]


def _write(path: Path, content: bytes, *, make_folder: bool = False) -> None:
    try:
        if make_folder:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, content)
    except OSError as error:
        raise UsageError(
            f"the file cannot be written: {error.strerror}", where=str(path), remedy="name another place"
        ) from error
