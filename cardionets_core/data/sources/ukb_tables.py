"""UK Biobank tables: one column under three names, and withdrawals (FORMATS section 3)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cardionets_core.data.phenotypes import FIELDS
from cardionets_core.data.sources.base import require_file
from cardionets_core.data.sources.tables import phenotype_row, read_table
from cardionets_core.errors import FolderMissingError, SourceInvalidError

_ID_COLUMNS = frozenset({"f.eid", "eid", "participant.eid"})
_NAMINGS = (
    re.compile(r"f\.(?P<field>\d+)\.(?P<instance>\d+)\.0"),
    re.compile(r"(?P<field>\d+)-(?P<instance>\d+)\.0"),
    re.compile(r"(?:participant\.)?p(?P<field>\d+)_i(?P<instance>\d+)(?:_a0)?"),
)
_WITHDRAWALS = re.compile(r"w(?P<application>\d+)_(?P<date>\d{8})\.csv", re.I)
_KEY = "source.table"


def column_of(name: str) -> tuple[int, str] | None:
    """(field, instance) of a column that holds one of the 82 phenotypes, under any naming; else None."""
    for naming in _NAMINGS:
        match = naming.fullmatch(name.strip())
        if match and FIELDS[0] <= int(match["field"]) <= FIELDS[-1]:
            return int(match["field"]), match["instance"]
    return None


def read_phenotypes(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """(eid, instance) to float32 [82]; visits without any value are absent.

    Raises:
        FolderMissingError: there is no such file.
        SourceInvalidError: no column of identifiers, or none of fields 24100 to 24181.
    """
    rows: dict[tuple[str, str], np.ndarray] = {}
    columns: dict[str, tuple[int, str]] | None = None
    identifier = ""
    for row in read_table(
        path, key=_KEY, keep=lambda name: name in _ID_COLUMNS or column_of(name) is not None
    ):
        if columns is None:
            columns = {name: found for name in row if (found := column_of(name)) is not None}
            identifier = next((name for name in row if name in _ID_COLUMNS), "")
            if not columns or not identifier:
                raise SourceInvalidError(
                    "no identifier (eid, f.eid, participant.eid) or no phenotype column was found; looked "
                    "for f.24100.2.0, 24100-2.0 and p24100_i2 up to field 24181",
                    where=f"site.yaml: {_KEY}",
                    remedy="export the fields with ukbconv (csv or r) or from the RAP, raw names, no titles",
                )
        visits: dict[str, dict[int, str]] = {}
        for name, (field, instance) in columns.items():
            visits.setdefault(instance, {})[field] = row[name]
        for instance, cells in visits.items():
            values = phenotype_row(cells, key=_KEY)
            if values is not None:
                rows[row[identifier], instance] = values
    if columns is None:
        raise SourceInvalidError(
            "the table has no rows", where=f"site.yaml: {_KEY}", remedy="export it again"
        )
    return rows


def withdrawal_files(path: Path) -> list[Path]:
    """The list itself, or the newest list of each application in a folder.

    Raises:
        FolderMissingError: neither file nor folder.
        SourceInvalidError: the folder holds no list; a site that names one means to apply it.
    """
    key = "source.withdrawals"
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FolderMissingError(f"there is no {path}", where=f"site.yaml: {key}", remedy="mend the path")
    newest: dict[str, tuple[str, Path]] = {}
    for candidate in sorted(path.iterdir()):
        match = _WITHDRAWALS.fullmatch(candidate.name)
        if match:
            listed = (match["date"], candidate)
            newest[match["application"]] = max(newest.get(match["application"], listed), listed)
    if not newest:
        raise SourceInvalidError(
            "the folder holds no withdrawal list", where=f"site.yaml: {key}",
            remedy="put the newest w<application>_<yyyymmdd>.csv there; an empty list is legal",
        )  # fmt: skip
    return [listed for _, listed in sorted(newest.values())]


def read_withdrawals(path: Path) -> frozenset[str]:
    """Identifiers of all who have withdrawn.

    Raises:
        FolderMissingError: neither file nor folder.
        SourceInvalidError: no list in the folder, or a line that is no identifier: a list that is not
            understood must not pass for a short one.
    """
    found: set[str] = set()
    for listed in withdrawal_files(path):
        text = require_file(listed, key="source.withdrawals").read_text(
            encoding="utf-8-sig", errors="replace"
        )
        for line in text.splitlines():
            cell = line.strip().strip('",; ')
            if cell and not re.fullmatch(r"-?[0-9]{1,12}", cell):
                raise SourceInvalidError(
                    "a line of the withdrawal list is no identifier", where="site.yaml: source.withdrawals",
                    remedy="use the list as UK Biobank sends it: one eid a line, no header",
                )  # fmt: skip
            if cell:
                found.add(cell)
    return frozenset(found)
