"""Lists of people who have withdrawn: applied to every recording and every table (step 2 of the walk).

A list that is not understood must not pass for a short one: anything but one identifier a line is an error.
"""

from __future__ import annotations

import re
from pathlib import Path

from cardionets_core.data.sources.base import require_file
from cardionets_core.data.sources.table_files import MAXIMUM_LIST_BYTES, open_text
from cardionets_core.data.sources.tables import identifier
from cardionets_core.errors import SourceInvalidError

KEY = "source.withdrawals"
_UKB_LIST = re.compile(r"w(?P<application>\d+)_(?P<date>\d{8})\.csv", re.I)
_NUMBER = re.compile(r"-?[0-9]{1,12}")
_WORD = re.compile(r"[^\s,;\"'\x00-\x1f\ufffd]{1,64}")


def read_list(path: Path | None, *, numbers: bool) -> frozenset[str]:
    """Identifiers of a file with one a line and no header; an empty file is legal, None gives nobody.

    Args:
        path: the file.
        numbers: whether identifiers are whole numbers (UK Biobank, MIMIC).

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: a line is no identifier, or the file is larger than any list.
    """
    if path is None:
        return frozenset()
    form = _NUMBER if numbers else _WORD
    try:
        with open_text(path, key=KEY, limit_bytes=MAXIMUM_LIST_BYTES) as (text, _):
            cells = {identifier(line.strip().strip('",; ')) for line in text.read().splitlines()} - {""}
        is_understood = all(form.fullmatch(cell) for cell in cells)
    except UnicodeDecodeError:
        is_understood = False
    if not is_understood:
        raise SourceInvalidError(
            "a line of the withdrawal list is no identifier", where=f"site.yaml: {KEY}",
            remedy="give one identifier a line and no header"
            + (": the list as it was sent" if numbers else ", spelt as in the tables and file names"),
        )  # fmt: skip
    return frozenset(cells)


def ukb_lists(path: Path | None) -> list[Path]:
    """The list itself, or the newest list of each application in a folder; None gives none.

    Raises:
        FolderMissingError: neither file nor folder.
        SourceInvalidError: the folder holds no list; a site that names one means to apply it.
    """
    if path is None:
        return []
    if not path.is_dir():
        return [require_file(path, key=KEY)]
    newest: dict[str, tuple[str, Path]] = {}
    for candidate in sorted(path.iterdir()):
        match = _UKB_LIST.fullmatch(candidate.name)
        if match:
            listed = (match["date"], candidate)
            newest[match["application"]] = max(newest.get(match["application"], listed), listed)
    if not newest:
        raise SourceInvalidError(
            "the folder holds no withdrawal list", where=f"site.yaml: {KEY}",
            remedy="put the newest w<application>_<yyyymmdd>.csv there; an empty list is legal",
        )  # fmt: skip
    return [listed for _, listed in sorted(newest.values())]


def read_ukb_lists(path: Path | None) -> frozenset[str]:
    """Identifiers of all who have withdrawn, by the newest list of each application."""
    return frozenset().union(*(read_list(listed, numbers=True) for listed in ukb_lists(path)))
