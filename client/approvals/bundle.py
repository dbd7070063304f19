"""A code bundle read as data, with bounds: nothing is imported, and nothing is unpacked to disk (row 0).

Comes in: bytes from a stranger. Goes out: its files. One that could be read in two ways, or that is
larger than any of ours, is refused.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cardionets_core.errors import PeerError

LARGEST_BYTES = 16_000_000
LARGEST_FILE_BYTES = 4_000_000
LARGEST_SUM_BYTES = 40_000_000
MOST_FILES = 4000
LARGEST_KIT_BYTES = 200_000_000
DOCUMENT = "pyproject.toml"
MANIFEST = ".info/CONTENT"
LARGEST_DOCUMENT_BYTES = 16_000
"""Of the document: keys of many dots cost the reader the square of their number."""
PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others may ask for gigabytes before they give a byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBundle:
    """What a bundle holds.

    Attributes:
        sha256: of its bytes; Flower names the code by it.
        files: path to content, without Flower's own list of contents.
        name: of the app.
        version: of the app.
        client_app: what a site runs, ``module:attribute``.
        dependencies: what it asks to be installed; a site installs nothing.
    """

    sha256: str
    files: Mapping[str, bytes]
    name: str
    version: str
    client_app: str
    dependencies: tuple[str, ...]


def read_bundle(content: bytes) -> CodeBundle:
    """Read a bundle.

    Raises:
        PeerError: it is no bundle, is ambiguous, or passes a bound.
    """
    if len(content) > LARGEST_BYTES:
        raise _refused(f"it has {len(content):,} bytes; at most {LARGEST_BYTES:,} are looked at")
    files = zip_files(content)
    files.pop(MANIFEST, None)
    if len(files.get(DOCUMENT, b"")) > LARGEST_DOCUMENT_BYTES:
        raise _refused(f"its {DOCUMENT} is too large")
    try:
        document = tomllib.loads(files[DOCUMENT].decode("utf-8"))
        project: dict[str, Any] = document["project"]
        dependencies = project.get("dependencies", [])
        if not isinstance(dependencies, list):
            raise TypeError("not a list")
        return CodeBundle(
            sha256=hashlib.sha256(content).hexdigest(),
            files=files,
            name=str(project["name"]),
            version=str(project["version"]),
            client_app=str(document["tool"]["flwr"]["app"]["components"]["clientapp"]),
            dependencies=tuple(str(item) for item in dependencies),
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _refused(f"its {DOCUMENT} is missing or not that of a Flower app") from error


def zip_files(content: bytes, *, largest_bytes: int = LARGEST_SUM_BYTES) -> dict[str, bytes]:
    """The files of a zip, in the order of their paths.

    Args:
        content: of the zip.
        largest_bytes: of all files together, unpacked.

    Raises:
        PeerError: it is no zip, names a file twice or outside of itself, or passes a bound.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            rows = [row for row in archive.infolist() if not row.is_dir()]
            _check_names([row.filename for row in rows])
            if any(row.compress_type not in PACKINGS for row in rows):
                raise _refused("it is not a readable zip: it is packed as none of ours is")
            if sum(row.file_size for row in rows) > largest_bytes:
                raise _refused(f"its files have more than {largest_bytes:,} bytes")
            return {row.filename: _read(archive, row) for row in sorted(rows, key=lambda row: row.filename)}
    except PeerError:
        raise
    except Exception as error:  # over a stranger's bytes zipfile fails in every way that it can
        raise _refused("it is not a readable zip") from error


def printable(text: str) -> str:
    """Text of a stranger without what would steer a terminal."""
    return "".join(sign if sign.isprintable() or sign == "\t" else f"\\x{ord(sign):02x}" for sign in text)


def _read(archive: zipfile.ZipFile, row: zipfile.ZipInfo) -> bytes:
    # The size in the zip is a claim; what is read is counted.
    with archive.open(row) as stream:
        content = stream.read(LARGEST_FILE_BYTES + 1 if row.filename[-4:] != ".fab" else LARGEST_BYTES + 1)
    if len(content) > (LARGEST_FILE_BYTES if row.filename[-4:] != ".fab" else LARGEST_BYTES):
        raise _refused(f"{printable(row.filename)} is too large")
    return content


def _check_names(names: list[str]) -> None:
    if len(names) > MOST_FILES:
        raise _refused(f"it has {len(names)} files; at most {MOST_FILES} are looked at")
    if len({name.casefold() for name in names}) != len(names):
        raise _refused("it names a file twice")
    for name in names:
        path = PurePosixPath(name)
        plain = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts
        if not plain or "\\" in name or ":" in name:
            raise _refused(f"it names a file outside of itself: {printable(name)}")


def _refused(why: str) -> PeerError:
    return PeerError(
        f"this is no code bundle that can be looked at: {why}",
        where="bundle",
        remedy="ask the coordinator for the bundle that `cardionets-server package` wrote",
    )
