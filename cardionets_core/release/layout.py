"""Where everything lies in a release, and its list of checksums (after step 14 of the walk).

Comes in: a folder, or the text of a list. Goes out: names and digests, or a refusal. Names are plain, short
and few, so that a stranger's list leads nowhere else. The list is what ``sha256sum -c`` reads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cardionets_core.plain_json import read_bounded
from cardionets_core.release.refusals import ReleaseTornError

CHECKSUMS = "checksums.sha256"
SIGNATURE = "signature.json"
MODEL = "model"
"""Folder of the safetensors files and ``model.json``."""
ONNX = "onnx"
CARD, PAGE, LICENCE = "CARD.md", "card.html", "LICENSE"
RELEASE, STUDY, PREPROCESSING = "release.json", "study.json", "preprocessing.json"
STANDARDISER, CALIBRATION = "standardiser.json", "calibration.json"

MOST_FILES = 256
LARGEST_LIST_BYTES = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,2}")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
AGAIN = "use no part of it; get the release again from whoever handed it to you"


def is_plain(name: str) -> bool:
    """Whether a name can be that of a file in a release: relative, short, and of plain letters."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def checksums_of(folder: Path) -> bytes:
    """The list of every file in a folder but the list itself and its signature."""
    names = sorted(set(_names_in(folder)) - {CHECKSUMS, SIGNATURE})
    return "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names).encode()


def listed(content: bytes, *, where: str) -> dict[str, str]:
    """Name to SHA-256.

    Raises:
        ReleaseTornError: it is no such list, is too long, names a file twice or outside of the release.
    """
    lines = content.decode("utf-8", "replace").splitlines()
    found: dict[str, str] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not is_plain(match[2]) or match[2] in (CHECKSUMS, SIGNATURE):
            raise torn("the list of checksums holds a line that no release has", where)
        found[match[2]] = match[1]
    if not found or len(found) != len(lines) or len(found) > MOST_FILES:
        raise torn("the list of checksums is empty, too long, or names a file twice", where)
    return found


def check_files(folder: Path) -> bytes:
    """Hold every file of a folder against the list.

    Returns:
        The list as it lies there; its signature is over these bytes.

    Raises:
        ReleaseTornError: the list is not there or wrong; a file is absent, changed, added, or no plain file.
    """
    where = str(folder / CHECKSUMS)
    try:
        content = read_bounded(folder / CHECKSUMS, most_bytes=LARGEST_LIST_BYTES)
    except (OSError, ValueError) as error:
        raise torn("there is no list of checksums that can be read", where) from error
    wanted = listed(content, where=where)
    there = set(_names_in(folder)) - {CHECKSUMS, SIGNATURE}
    faults = [f"{name} is absent" for name in sorted(wanted.keys() - there)]
    faults += [f"{name} does not belong to it" for name in sorted(there - wanted.keys())]
    faults += [
        f"{name} was changed"
        for name in sorted(wanted.keys() & there)
        if sha256_of(folder / name) != wanted[name]
    ]
    if faults:
        more = f", and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise torn(f"the release is not as it was made: {', '.join(faults[:5])}{more}", str(folder))
    return content


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sizes_of(folder: Path) -> Mapping[str, int]:
    """Name to bytes of every file, in the order of the names."""
    return {name: (folder / name).stat().st_size for name in sorted(_names_in(folder))}


def torn(what: str, where: str) -> ReleaseTornError:
    """The error for a release that is not whole."""
    return ReleaseTornError(what, where=where, remedy=AGAIN)


def _names_in(folder: Path) -> list[str]:
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        base = Path(root)
        for name in [*folders, *files]:
            path = base / name
            plain = path.relative_to(folder).as_posix()
            # A link or a pipe would lead out of the folder, or wait for ever.
            if path.is_symlink() or not (path.is_dir() or path.is_file()) or not is_plain(plain):
                raise torn(f"the release holds what no release does: {plain!r}", str(folder))
            if path.is_file():
                found.append(plain)
        if len(found) > MOST_FILES:
            raise torn(
                f"the folder holds more than the {MOST_FILES} files that a release may have", str(folder)
            )
    return found
