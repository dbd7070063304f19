"""A startup kit: files in one zip, listed with their SHA-256, and the list signed by the authority.

Comes in: named bytes and the authority's key, or a zip from outside. Goes out: the same bytes for the same
files, or the files after every check. Touches no folder.

A kit carries the authority's certificate, so it can only prove to be whole and of that authority; whether it
is the right one, a site knows from the one it already holds, or from the fingerprint that it compares.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.errors import CardioNetsError, CertificateInvalidError, UsageError
from cardionets_core.trust.certificates import Certificate, key_of, read_certificate
from cardionets_core.trust.keys import PrivateKey
from cardionets_core.trust.signatures import fits, sign

MANIFEST = "MANIFEST.sha256"
SIGNATURE = "MANIFEST.sig"
AUTHORITY = "trust/ca.crt"
CERTIFICATE = "trust/site.crt"
KEY = "trust/site.key"
CONNECTION = "connection.yaml"
SITE_TEMPLATE = "site.yaml"
PURPOSE = "cardionets-kit-1"

MAXIMUM_FILES = 64
MAXIMUM_FILE_BYTES = 32_000_000
MAXIMUM_KIT_BYTES = 64_000_000
SECRET = frozenset({KEY})
_ZIP = b"PK"
"""How a zip begins; what begins otherwise is no damaged kit but another file."""
_PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others may ask for gigabytes before they give a byte."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100000
_UNIX = 3
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,3}")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What was found in a kit whose checks all passed.

    Attributes:
        files: name to content, without the manifest and its signature.
        authority: that signed it.
    """

    files: Mapping[str, bytes]
    authority: Certificate


def pack_kit(files: Mapping[str, bytes], *, key: PrivateKey) -> bytes:
    """A zip of the files with their manifest and its signature.

    Args:
        files: plain relative names to content; ``trust/ca.crt`` is the certificate of ``key``.
        key: of the authority.
    """
    manifest = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    signed = {
        **files,
        MANIFEST: manifest.encode(),
        SIGNATURE: sign(key, manifest.encode(), purpose=PURPOSE),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(signed):
            entry = zipfile.ZipInfo(name, date_time=_EARLIEST)
            entry.create_system = _UNIX
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (_REGULAR_FILE | (0o600 if name in SECRET else 0o644)) << 16
            archive.writestr(entry, signed[name])
    return packed.getvalue()


def open_kit(path: Path) -> Kit:
    """Read a kit and check all of it, before anything is written.

    Raises:
        UsageError: there is no such file, or it is a folder or another kind of file than a zip.
        CertificateInvalidError: it is no kit, has names that would leave the folder, is too large, a file is
            missing, foreign or changed, or the signature is not the authority's.
    """
    files = _unzipped(path)
    manifest, signature = files.pop(MANIFEST, None), files.pop(SIGNATURE, None)
    if manifest is None or signature is None or AUTHORITY not in files:
        raise _refused("the file is no startup kit: manifest, signature or authority are missing", path)
    authority = read_certificate(files[AUTHORITY], where=f"{path}: {AUTHORITY}")
    if not fits(key_of(authority), signature, manifest, purpose=PURPOSE):
        raise _refused("the kit's manifest is not signed by its authority", path)
    listed = _listed(manifest, path)
    strangers = sorted(files.keys() ^ listed.keys())
    if strangers:
        raise _refused(f"files and manifest of the kit differ: {', '.join(strangers)}", path)
    changed = sorted(name for name in listed if hashlib.sha256(files[name]).hexdigest() != listed[name])
    if changed:
        raise _refused(f"files of the kit were changed: {', '.join(changed)}", path)
    return Kit(files=files, authority=authority)


def _unzipped(path: Path) -> dict[str, bytes]:
    try:
        if not path.is_file():
            told = "the path is that of a folder" if path.is_dir() else "there is no such file"
            raise _mistaken(told, path)
        if path.stat().st_size > MAXIMUM_KIT_BYTES:
            raise _refused("the file is too large for a startup kit", path)
        with path.open("rb") as stream:
            if stream.read(len(_ZIP)) not in (_ZIP, b""):
                raise _mistaken("the file is no zip, so it is no startup kit", path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAXIMUM_FILES or sum(e.file_size for e in entries) > MAXIMUM_KIT_BYTES:
                raise _refused("the zip holds more than a startup kit does", path)
            found: dict[str, bytes] = {}
            for entry in entries:
                if entry.compress_type not in _PACKINGS:
                    raise _refused("the zip is packed as no kit is", path)
                if not _PLAIN_NAME.fullmatch(entry.filename) or entry.filename in found:
                    raise _refused(f"the zip holds a name that no kit has: {entry.filename!r}", path)
                found[entry.filename] = _content(archive, entry, path)
            return found
    except CardioNetsError:
        raise
    except Exception as error:  # over a stranger's bytes zipfile fails in every way that it can
        raise _refused("the zip is damaged or cannot be read", path) from error


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    """One file; what a header says of its size is not believed."""
    with archive.open(entry) as stream:
        content = stream.read(MAXIMUM_FILE_BYTES + 1)
    if len(content) > MAXIMUM_FILE_BYTES:
        raise _refused(f"{entry.filename} is too large for a startup kit", path)
    return content


def _listed(manifest: bytes, path: Path) -> dict[str, str]:
    lines = [_LINE.fullmatch(line) for line in manifest.decode("utf-8", "replace").splitlines()]
    found = {match[2]: match[1] for match in lines if match}
    if len(found) != len(lines):
        raise _refused("the kit's manifest cannot be read", path)
    return found


def _mistaken(what: str, path: Path) -> UsageError:
    return UsageError(
        what,
        where=str(path),
        remedy="look at the path: a kit is the file NAME-kit.zip that the coordinator sent",
    )


def _refused(what: str, path: Path) -> CertificateInvalidError:
    return CertificateInvalidError(
        what, where=str(path), remedy="use no part of it; ask the coordinator to send the kit again"
    )
