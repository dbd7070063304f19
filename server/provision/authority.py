"""The consortium's authority and the server's certificate, in the workspace's folder ``trust``.

Comes in: a workspace. Goes out: keys and certificates that fit each other. An authority is made once and
never again: every site holds its certificate, and a second one would lock all of them out.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.config.workspace import ServerConfig, Workspace
from cardionets_core.errors import CardioNetsError, CertificateInvalidError, ConfigError
from cardionets_core.trust.certificates import (
    Certificate,
    certificate_pem,
    consortium_of,
    issue_server,
    key_of,
    make_authority,
    names_of,
    normal_name,
    read_certificate,
    serial_of,
)
from cardionets_core.trust.keys import PrivateKey, fingerprint, make_key, private_pem, read_private
from cardionets_core.trust.secret_files import exposed, make_secret_folder, write_file
from cardionets_core.trust.validity import check_server, check_times

JOURNAL = "journal.jsonl"
_BACKUP = "restore the folder trust from its backup; a new authority would lock out every site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whoever holds the key signs for the consortium.

    Attributes:
        certificate: every site holds it.
        key: secret.
    """

    certificate: Certificate
    key: PrivateKey

    @property
    def fingerprint(self) -> str:
        """Of the public key; people compare it."""
        return fingerprint(self.key.public_key())


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """What a TLS server needs.

    Attributes:
        certificate_file: PEM.
        key_file: PEM, secret.
        authority_file: PEM.
        certificate: as read.
    """

    certificate_file: Path
    key_file: Path
    authority_file: Path
    certificate: Certificate


def authority(workspace: Workspace) -> Authority:
    """The authority of a workspace.

    Raises:
        CertificateInvalidError: there is none, it is torn, expired, or its key is another's.
        PrivacyError: its key lies open to other accounts.
    """
    key_file, file = workspace.trust / "ca.key", workspace.trust / "ca.crt"
    if not file.exists() and not key_file.exists():
        raise CertificateInvalidError(
            "the consortium has no authority yet",
            where=str(workspace.trust),
            remedy="make it with: cardionets-server provision DIR",
        )
    found = Authority(
        certificate=read_certificate(_bytes(file), where=str(file)),
        key=_key(key_file),
    )
    if fingerprint(key_of(found.certificate)) != found.fingerprint:
        raise CertificateInvalidError(
            "ca.key is not the key of ca.crt", where=str(workspace.trust), remedy=_BACKUP
        )
    check_times(found.certificate, what="the authority's certificate", where=str(file))
    return found


def ensure_authority(workspace: Workspace, config: ServerConfig) -> Authority:
    """The authority, made if the workspace never had one.

    Raises:
        ConfigError: ``server.yaml`` names another consortium than the authority.
    """
    make_secret_folder(workspace.trust)
    key_file, file = workspace.trust / "ca.key", workspace.trust / "ca.crt"
    if not file.exists():
        if not key_file.exists():
            write_file(key_file, private_pem(make_key()), secret=True, replace=False)
        # A key without a certificate is what an interrupted first call leaves: it is used, not replaced.
        certificate = make_authority(_key(key_file), consortium=config.consortium)
        facts = {"consortium": config.consortium, "fingerprint": fingerprint(key_of(certificate))}
        journal.append(workspace.trust / JOURNAL, "authority-made", facts)
        write_file(file, certificate_pem(certificate), secret=False, replace=False)
    found = authority(workspace)
    if consortium_of(found.certificate) != config.consortium:
        raise ConfigError(
            f"the authority is that of {consortium_of(found.certificate)!r}, not of {config.consortium!r}",
            where=f"{workspace.server_yaml}: consortium",
            remedy="keep the name under which the authority was made; another consortium is another folder",
        )
    return found


def ensure_server_certificate(workspace: Workspace) -> ServerCertificate:
    """Files for the server's TLS; made where there are none yet.

    Raises:
        CertificateInvalidError: those that are there are expired, of another authority, or lack the address
            or a name of ``server.yaml``; the remedy is to renew them.
    """
    with changing(workspace):
        return held_server_certificate(workspace)


def held_server_certificate(workspace: Workspace) -> ServerCertificate:
    """``ensure_server_certificate`` for a caller that holds ``changing`` already."""
    config = workspace.config()
    signer = ensure_authority(workspace, config)
    if not (workspace.trust / "server.crt").exists():
        _issue_server_certificate(workspace, config, signer)
    found = server_certificate(workspace)
    try:
        for name in server_names(config):
            check_server(found.certificate, signer.certificate, name=name, where=str(found.certificate_file))
    except CertificateInvalidError as error:
        raise CertificateInvalidError(
            error.what, where=error.where, remedy="cardionets-server renew DIR --server, then restart"
        ) from error
    return found


def renew_server_certificate(workspace: Workspace) -> ServerCertificate:
    """A new certificate for the server's same key, with the names that ``server.yaml`` gives now."""
    with changing(workspace):
        _issue_server_certificate(workspace, workspace.config(), authority(workspace))
        return server_certificate(workspace)


def server_certificate(workspace: Workspace) -> ServerCertificate:
    """What is on disk, whether it is still good or not.

    Raises:
        CertificateInvalidError: there is none, or key and certificate do not belong together.
    """
    file, key_file = workspace.trust / "server.crt", workspace.trust / "server.key"
    certificate = read_certificate(_bytes(file), where=str(file))
    if fingerprint(key_of(certificate)) != fingerprint(_key(key_file).public_key()):
        raise CertificateInvalidError(
            "server.key is not the key of server.crt",
            where=str(workspace.trust),
            remedy="cardionets-server renew DIR --server",
        )
    return ServerCertificate(
        certificate_file=file,
        key_file=key_file,
        authority_file=workspace.trust / "ca.crt",
        certificate=certificate,
    )


def server_names(config: ServerConfig) -> tuple[str, ...]:
    """Every name of the server's certificate; loopback is among them, for the inner listener."""
    asked = (config.host, *config.names, "localhost", "127.0.0.1")
    return tuple(dict.fromkeys(normal_name(name) for name in asked))


@contextlib.contextmanager
def changing(workspace: Workspace) -> Iterator[None]:
    """Only one process at a time changes a workspace's trust; others wait."""
    make_secret_folder(workspace.trust)
    with (workspace.trust / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _issue_server_certificate(workspace: Workspace, config: ServerConfig, signer: Authority) -> None:
    key_file = workspace.trust / "server.key"
    if not key_file.exists():
        write_file(key_file, private_pem(make_key()), secret=True, replace=False)
    certificate = issue_server(
        _key(key_file).public_key(),
        names=server_names(config),
        days=config.certificates.server_days,
        signer=signer.certificate,
        signer_key=signer.key,
    )
    facts = {"serial": serial_of(certificate), "names": " ".join(names_of(certificate))}
    journal.append(workspace.trust / JOURNAL, "server-certificate-issued", facts)
    write_file(workspace.trust / "server.crt", certificate_pem(certificate), secret=False)


def _key(path: Path) -> PrivateKey:
    problem: CardioNetsError | None = exposed(path)
    if problem is not None:
        raise problem
    return read_private(_bytes(path), where=str(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateInvalidError(
            f"{path.name} cannot be read: {error.strerror}", where=str(path), remedy=_BACKUP
        ) from error
