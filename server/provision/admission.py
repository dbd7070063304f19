"""Sites come, are renewed, and go; each by one call that touches no other site.

Comes in: a workspace, and a name or a signing request. Goes out: certificate, key in OpenSSH form, kit, and
last of all the row of the registry: whatever is interrupted before it has admitted nobody.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.config.sites import TIME, SiteRow
from cardionets_core.config.workspace import SITE_NAME, Workspace
from cardionets_core.errors import NotAdmittedError, UsageError
from cardionets_core.plain_json import read_bounded
from cardionets_core.trust.certificates import (
    MAXIMUM_REQUEST_BYTES,
    Certificate,
    certificate_pem,
    issue_site,
    read_certificate,
    read_request,
    serial_of,
)
from cardionets_core.trust.keys import (
    PublicKey,
    fingerprint,
    make_key,
    make_passphrase,
    private_pem,
    public_openssh,
    read_public,
)
from cardionets_core.trust.secret_files import make_secret_folder, write_file
from server.provision.authority import Authority, authority, changing, held_server_certificate
from server.provision.kits import kit_path, passphrase_path, travelling_key, write_kit
from server.provision.registry import Registry, change_row, read_registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What was made for a site.

    Attributes:
        row: of the registry.
        kit: the zip to send.
        passphrase_file: to send by another way; None where the site made its own key.
    """

    row: SiteRow
    kit: Path
    passphrase_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A signing request that passed its checks.

    Attributes:
        site: that it names.
        key: of the site.
        fingerprint: of the key; to be compared with what the site reads out.
    """

    site: str
    key: PublicKey
    fingerprint: str


def provision(workspace: Workspace, sites: Sequence[str]) -> list[Admission]:
    """Authority and server certificate if they are absent, and key, certificate and kit for each site.

    Raises:
        UsageError: a name is wrong, given twice, taken or revoked; then nothing was made for any site.
    """
    with changing(workspace):
        held_server_certificate(workspace)
        signer, registry = authority(workspace), read_registry(workspace)
        for site in sites:
            if not re.fullmatch(SITE_NAME, site):
                raise UsageError(
                    f"{site!r} is no name of a site",
                    where="--site",
                    remedy="use 1 to 63 lower-case letters, digits and hyphens, no hyphen first",
                )
            if sites.count(site) > 1:
                raise UsageError(f"{site} is named twice", where="--site", remedy="name it once")
            _refuse_taken(registry, site, readmit=False)
        return [_provision(workspace, site, signer) for site in sites]


def read_asked(path: Path) -> Asked:
    """Read a signing request from a file.

    Raises:
        UsageError: there is no such file.
        CertificateInvalidError: as ``read_request``.
    """
    try:
        content = read_bounded(path, most_bytes=MAXIMUM_REQUEST_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the request cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            remedy="give the file NAME.request that the site sent",
        ) from error
    site, key = read_request(content, where=str(path))
    return Asked(site=site, key=key, fingerprint=fingerprint(key))


def admit(workspace: Workspace, asked: Asked, *, readmit: bool = False) -> Admission:
    """Admit a site that made its own key.

    Args:
        workspace: of the consortium.
        asked: its request, whose fingerprint somebody compared.
        readmit: let a revoked name come back, with another key.

    Raises:
        UsageError: the name or the key is taken, or was revoked.
    """
    with changing(workspace):
        held_server_certificate(workspace)
        signer, registry = authority(workspace), read_registry(workspace)
        known = registry.of_fingerprint(asked.fingerprint)
        if known is not None and known.status == "revoked":
            raise UsageError(
                f"the key of this request was revoked ({known.site}: {known.reason}); it stays revoked",
                where=asked.site,
                remedy="the site makes a new key in a new folder: cardionets-client request",
            )
        if known is not None and known.site != asked.site:
            raise UsageError(
                f"the key of this request is that of {known.site}",
                where=asked.site,
                remedy="each site makes its own key",
            )
        _refuse_taken(registry, asked.site, readmit=readmit)
        return _admitted(workspace, asked.site, asked.key, signer)


def renew(workspace: Workspace, site: str) -> Admission:
    """A new certificate for a site's same key, and a kit with it.

    Raises:
        NotAdmittedError: there is no such site, or it is revoked.
    """
    with changing(workspace):
        row = known_site(read_registry(workspace), site)
        key = read_public(row.public_key.encode(), where=site)
        travelling = travelling_key(workspace, row)
        signer = authority(workspace)
        made = _admitted(workspace, site, key, signer, earlier=row, encrypted_key=travelling)
    return Admission(row=made.row, kit=made.kit, passphrase_file=_passphrase_file(workspace, row, travelling))


def revoke(workspace: Workspace, site: str, *, reason: str) -> SiteRow:
    """Put a site out; its key is never admitted again.

    Raises:
        NotAdmittedError: there is no such site, or it is revoked already.
    """
    if not reason.strip():
        raise UsageError(
            "a revocation has a reason", where="--reason", remedy="say in a few words why; it is kept"
        )
    with changing(workspace):
        row = known_site(read_registry(workspace), site)
        gone = row.model_copy(update={"status": "revoked", "reason": reason.strip()[:500]})
        change_row(workspace, gone, event="site-revoked")
        # A kit that still lies here would be refused; nobody should send it by mistake.
        kit_path(workspace, site).unlink(missing_ok=True)
        passphrase_path(workspace, site).unlink(missing_ok=True)
    return gone


def remake_kit(workspace: Workspace, site: str) -> Admission:
    """A kit with today's address, code and study around the certificate that the site has.

    It holds a key only where the kit that still lies here does.

    Raises:
        NotAdmittedError: there is no such site, or it is revoked.
    """
    with changing(workspace):
        row = known_site(read_registry(workspace), site)
        file = workspace.trust / "sites" / f"{site}.crt"
        certificate = read_certificate(file.read_bytes(), where=str(file))
        travelling = travelling_key(workspace, row)
        kit = write_kit(
            workspace,
            site=site,
            certificate=certificate,
            signer=authority(workspace),
            encrypted_key=travelling,
        )
    return Admission(row=row, kit=kit, passphrase_file=_passphrase_file(workspace, row, travelling))


def known_site(registry: Registry, site: str) -> SiteRow:
    """The admitted row of a name.

    Raises:
        NotAdmittedError: there is none; the message names those that there are.
    """
    row = registry.named(site)
    if row is None:
        names = ", ".join(sorted({each.site for each in registry.rows if each.status == "admitted"}))
        raise NotAdmittedError(
            f"there is no site {site!r}", where="--site", remedy=f"the sites are: {names or 'none yet'}"
        )
    if row.status == "revoked":
        raise NotAdmittedError(
            f"{site} was revoked: {row.reason}",
            where="--site",
            remedy="the site makes a new key, and you admit it again: cardionets-server admit DIR "
            f"{site}.request --readmit",
        )
    return row


def _refuse_taken(registry: Registry, site: str, *, readmit: bool) -> None:
    row = registry.named(site)
    if row is None or (row.status == "revoked" and readmit):
        return
    if row.status == "revoked":
        raise UsageError(
            f"the name {site} was revoked: {row.reason}",
            where=site,
            remedy="if the same hospital comes back with a new key: cardionets-server admit DIR "
            f"{site}.request --readmit; else choose another name",
        )
    raise UsageError(
        f"the name {site} is taken (key {row.fingerprint[:16]}…)",
        where=site,
        remedy="another hospital takes another name; for the same one: cardionets-server renew (a new "
        "certificate), kit (the kit again), or revoke and admit --readmit (a new key)",
    )


def _provision(workspace: Workspace, site: str, signer: Authority) -> Admission:
    key, passphrase = make_key(), make_passphrase()
    make_secret_folder(workspace.kits)
    # Before the kit: a kit that nobody can open is worth nothing.
    write_file(passphrase_path(workspace, site), passphrase.encode() + b"\n", secret=True)
    encrypted = private_pem(key, passphrase=passphrase)
    made = _admitted(workspace, site, key.public_key(), signer, encrypted_key=encrypted)
    return Admission(row=made.row, kit=made.kit, passphrase_file=passphrase_path(workspace, site))


def _admitted(
    workspace: Workspace,
    site: str,
    key: PublicKey,
    signer: Authority,
    *,
    earlier: SiteRow | None = None,
    encrypted_key: bytes | None = None,
) -> Admission:
    certificate = issue_site(
        key,
        site=site,
        days=workspace.config().certificates.site_days,
        signer=signer.certificate,
        signer_key=signer.key,
    )
    kit = write_kit(workspace, site=site, certificate=certificate, signer=signer, encrypted_key=encrypted_key)
    _write_public(workspace, site, key, certificate)
    row = SiteRow(
        site=site,
        fingerprint=fingerprint(key),
        public_key=public_openssh(key),
        serial=serial_of(certificate),
        not_after=certificate.not_valid_after_utc.strftime(TIME),
        status="admitted",
        admitted_s=earlier.admitted_s if earlier else round(time.time(), 3),
    )
    change_row(workspace, row, event="site-renewed" if earlier else "site-admitted")
    return Admission(row=row, kit=kit)


def _passphrase_file(workspace: Workspace, row: SiteRow, travelling: bytes | None) -> Path | None:
    path = passphrase_path(workspace, row.site)
    return path if travelling is not None and path.exists() else None


def _write_public(workspace: Workspace, site: str, key: PublicKey, certificate: Certificate) -> None:
    """The key as Flower registers it, and the certificate for the next kit."""
    folder = workspace.trust / "sites"
    make_secret_folder(folder)
    write_file(folder / f"{site}.pub", f"{public_openssh(key)} {site}\n".encode(), secret=False)
    write_file(folder / f"{site}.crt", certificate_pem(certificate), secret=False)
