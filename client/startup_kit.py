"""A startup kit becomes a site's folder, or brings a new certificate and address into one.

Comes in: a zip from the coordinator and a folder. Goes out: the kit's files in the folder,
``connection.yaml`` last, so that a folder with one is whole. Every check comes before the first write.
``site.yaml`` and keys that are there stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.connection import ConnectionConfig, SiteFolder
from cardionets_core.config.read import parse_document, read_text_mapping
from cardionets_core.errors import CertificateInvalidError, NotAdmittedError, StorageFailedError, UsageError
from cardionets_core.trust.certificates import (
    Certificate,
    consortium_of,
    key_of,
    read_certificate,
    serial_of,
    site_of,
)
from cardionets_core.trust.keys import fingerprint, heard, private_openssh, read_private
from cardionets_core.trust.kit import CERTIFICATE, CONNECTION, KEY, SITE_TEMPLATE, Kit, open_kit
from cardionets_core.trust.secret_files import make_secret_folder, write_file
from cardionets_core.trust.validity import check_site, days_left
from client.site_request import AUTHORITY as AUTHORITY_FILE
from client.site_request import CERTIFICATE as CERTIFICATE_FILE
from client.site_request import KEY as KEY_FILE
from client.site_request import site_key

OWN_SETTINGS = ("runtime_port", "health_port", "restart", "logs")
_OTHER_FOLDER = "unpack it into a folder of its own"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """A kit that may be unpacked into a folder."""

    kit: Kit
    connection: ConnectionConfig
    certificate: Certificate
    new_key: bytes | None


def install_kit(
    path: Path, folder: SiteFolder, *, passphrase: str | None = None, authority: str | None = None
) -> dict[str, Any]:
    """Check a kit and unpack it.

    Args:
        path: of the zip.
        folder: new, made by ``request``, or that of an earlier kit of the same site.
        passphrase: of the key, where the coordinator made it.
        authority: fingerprint that the coordinator read out; None leaves the comparison to the reader.

    Returns:
        JSON-ready.

    Raises:
        CertificateInvalidError: the kit is damaged, changed, expired, or not of this site's key.
        NotAdmittedError: the kit is of another consortium or site than the folder.
        UsageError: the path is mistaken, or the kit needs a passphrase, or the key that ``request`` made,
            and that is not there.
        StorageFailedError: the folder cannot be written; run the command again to finish.
    """
    checked = _checked(path, folder, passphrase=passphrase, authority=authority)
    kept = _unpack(checked, folder)
    connection, certificate = checked.connection, checked.certificate
    return {
        "folder": str(folder.root),
        "consortium": connection.consortium,
        "site": connection.site,
        "server": connection.server,
        "authority_fingerprint": fingerprint(key_of(checked.kit.authority)),
        "authority_compared": authority is not None,
        "key_fingerprint": fingerprint(key_of(certificate)),
        "serial": serial_of(certificate),
        "days_left": round(days_left(certificate), 1),
        "package": sorted(name for name in checked.kit.files if name.startswith("package/")),
        "kept": kept,
    }


def _checked(path: Path, folder: SiteFolder, *, passphrase: str | None, authority: str | None) -> _Checked:
    kit = open_kit(path)
    for name in (CONNECTION, CERTIFICATE, SITE_TEMPLATE):
        if name not in kit.files:
            raise CertificateInvalidError(
                f"the kit lacks {name}", where=str(path), remedy="ask the coordinator for a new kit"
            )
    where = f"{path}: {CONNECTION}"
    content = read_text_mapping(kit.files[CONNECTION], where=where)
    connection = parse_document(ConnectionConfig, content, where=where)
    certificate = read_certificate(kit.files[CERTIFICATE], where=f"{path}: {CERTIFICATE}")
    _check_names(kit, connection, certificate, path)
    if authority is not None and heard(authority) != fingerprint(key_of(kit.authority)):
        raise CertificateInvalidError(
            "the kit's authority is not the one whose fingerprint was given",
            where=str(path),
            remedy="use no part of it; compare the fingerprint with the coordinator again, by telephone",
        )
    _check_folder(kit, connection, certificate, folder)
    new_key = _key(kit, certificate, folder, passphrase=passphrase, path=path)
    return _Checked(kit=kit, connection=connection, certificate=certificate, new_key=new_key)


def _check_names(kit: Kit, connection: ConnectionConfig, certificate: Certificate, path: Path) -> None:
    """All parts of the kit speak of one consortium and one site."""
    check_site(certificate, kit.authority, site=connection.site, where=f"{path}: {CERTIFICATE}")
    if consortium_of(kit.authority) != connection.consortium:
        raise CertificateInvalidError(
            f"the kit's authority is of {consortium_of(kit.authority)!r}, its address of "
            f"{connection.consortium!r}",
            where=str(path),
            remedy="ask the coordinator for a new kit",
        )


def _check_folder(
    kit: Kit, connection: ConnectionConfig, certificate: Certificate, folder: SiteFolder
) -> None:
    """A folder belongs to one site of one consortium, and goes forward only."""
    known = folder.trust / AUTHORITY_FILE
    if known.exists():
        held = read_certificate(known.read_bytes(), where=str(known))
        if fingerprint(key_of(held)) != fingerprint(key_of(kit.authority)):
            raise NotAdmittedError(
                f"the folder belongs to the consortium {consortium_of(held)!r}; the kit is of another "
                f"authority ({connection.consortium!r})",
                where=str(folder.root),
                remedy=_OTHER_FOLDER,
            )
    if folder.connection_yaml.exists():
        here = folder.config()
        if (here.consortium, here.site) != (connection.consortium, connection.site):
            raise NotAdmittedError(
                f"the folder is that of the site {here.site!r} of {here.consortium!r}; the kit is for "
                f"{connection.site!r} of {connection.consortium!r}",
                where=str(folder.root),
                remedy=_OTHER_FOLDER,
            )
    file = folder.trust / CERTIFICATE_FILE
    if file.exists():
        earlier = read_certificate(file.read_bytes(), where=str(file))
        if certificate.not_valid_before_utc < earlier.not_valid_before_utc:
            raise CertificateInvalidError(
                "the kit is older than the certificate that is here",
                where=str(file),
                remedy="use the newest kit; ask the coordinator if you have no other",
            )


def _key(
    kit: Kit, certificate: Certificate, folder: SiteFolder, *, passphrase: str | None, path: Path
) -> bytes | None:
    """The key to write, None where the right one is there; never another one over it."""
    wanted = fingerprint(key_of(certificate))
    if (folder.trust / KEY_FILE).exists():
        if fingerprint(site_key(folder).public_key()) == wanted:
            return None
        raise CertificateInvalidError(
            f"the kit is for another key than that of this folder (site {site_of(certificate)!r})",
            where=str(folder.trust / KEY_FILE),
            remedy="use the kit that answers this folder's request; a key is never overwritten",
        )
    encrypted = kit.files.get(KEY)
    if encrypted is None:
        raise UsageError(
            "the kit holds no private key, and the folder has none",
            where=str(folder.root),
            remedy="unpack it into the folder in which cardionets-client request made the key",
        )
    if passphrase is None:
        raise UsageError(
            "the kit's private key is encrypted",
            where=f"{path}: {KEY}",
            remedy="give the file with the passphrase, which came by another way: --passphrase-file FILE",
        )
    key = read_private(encrypted, where=f"{path}: {KEY}", passphrase=passphrase)
    if fingerprint(key.public_key()) != wanted:
        raise CertificateInvalidError(
            "the kit's key is not that of its certificate",
            where=str(path),
            remedy="ask the coordinator for a new kit",
        )
    return private_openssh(key)


def _unpack(checked: _Checked, folder: SiteFolder) -> list[str]:
    """Write the files; returns those that stay as they were."""
    files = dict(checked.kit.files)
    files.pop(KEY, None)
    kept = []
    if folder.site_yaml.exists():
        files.pop(SITE_TEMPLATE)
        kept.append(SITE_TEMPLATE)
    last = with_own_settings(files.pop(CONNECTION), folder)
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        make_secret_folder(folder.trust)
        if checked.new_key is None:
            kept.append(KEY)
        else:
            write_file(folder.trust / KEY_FILE, checked.new_key, secret=True, replace=False)
        for name, content in sorted(files.items()):
            target = folder.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, content, secret=False)
        _remove_older_bundles(files.keys(), folder)
        write_file(folder.connection_yaml, last, secret=False)
    except OSError as error:
        raise StorageFailedError(
            f"the kit could not be unpacked: {error.strerror or error}",
            where=str(folder.root),
            remedy="make the folder writable, and run the same command again to finish",
        ) from error
    return kept


def with_own_settings(text: bytes, folder: SiteFolder) -> bytes:
    """The kit's ``connection.yaml`` with the ports, pauses and log sizes that this site has chosen.

    The coordinator says where the server is and which versions run; the rest is the site's own.
    """
    if not folder.connection_yaml.exists():
        return text
    return _changed(text, folder.config().model_dump(mode="json", include=set(OWN_SETTINGS)))


def choose_ports(folder: SiteFolder, **ports: int | None) -> None:
    """Let the site listen on other ports of its own loopback; None leaves one as it is.

    Args:
        folder: a kit was unpacked there.
        ports: ``runtime_port`` and ``health_port``.
    """
    chosen = {name: port for name, port in ports.items() if port is not None}
    if chosen:
        write_file(
            folder.connection_yaml, _changed(folder.connection_yaml.read_bytes(), chosen), secret=False
        )


def _changed(text: bytes, values: Mapping[str, Any]) -> bytes:
    """A document with other values of some keys of its top level."""
    own, lines = dict(values), []
    for line in text.decode("utf-8").splitlines():
        key = line.partition(":")[0]
        # JSON on one line is YAML, too.
        lines.append(f"{key}: {json.dumps(own.pop(key))}" if key in own else line)
    lines += [f"{key}: {json.dumps(value)}" for key, value in own.items()]
    return ("\n".join(lines) + "\n").encode()


def _remove_older_bundles(names: Any, folder: SiteFolder) -> None:
    """A folder ``package`` holds one bundle: that of the newest kit that brought one."""
    new = {Path(name).name for name in names if name.startswith("package/")}
    if new:
        for path in folder.package.glob("*.fab"):
            if path.name not in new:
                path.unlink()
