"""The consortium's authority and what it signs: the server's certificate and one for each site.

Comes in: keys, names, days. Goes out: X.509 certificates and signing requests. A certificate of a site binds
its name to its public key; who is still admitted stands in the server's registry, not in a certificate.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cardionets_core.errors import CertificateInvalidError
from cardionets_core.trust.keys import UNREADABLE, PrivateKey, PublicKey, checked_public

Certificate = x509.Certificate
Request = x509.CertificateSigningRequest

AUTHORITY_DAYS = 3650
BACKDATED = timedelta(hours=1)
"""A site whose clock is a little behind must not meet a certificate of the future."""
_AUTHORITY_NAME = "CardioNets authority"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAXIMUM_REQUEST_BYTES = 16_384
_HASH = hashes.SHA384()
_UNREADABLE = (*UNREADABLE, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def make_authority(key: PrivateKey, *, consortium: str, now: datetime | None = None) -> Certificate:
    """The self-signed certificate of a consortium's authority, for ten years."""
    begins = (now or datetime.now(UTC)).replace(microsecond=0)
    name = _name(consortium, _AUTHORITY_NAME)
    return (
        _builder(name, name, key.public_key(), begins - BACKDATED, begins + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, _HASH)
    )


def issue_server(
    key: PublicKey,
    *,
    names: Sequence[str],
    days: int,
    signer: Certificate,
    signer_key: PrivateKey,
    now: datetime | None = None,
) -> Certificate:
    """A certificate for TLS servers.

    Args:
        key: of the server.
        names: host names and IP addresses under which it is reached; at least one.
        days: of validity; never longer than the authority's own.
        signer: the authority.
        signer_key: its key.
        now: default the machine's time.
    """
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    subject = _name(consortium_of(signer), "CardioNets server")
    return (
        _issued(key, subject, days=days, signer=signer, now=now)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer_key, _HASH)
    )


def issue_site(
    key: PublicKey,
    *,
    site: str,
    days: int,
    signer: Certificate,
    signer_key: PrivateKey,
    now: datetime | None = None,
) -> Certificate:
    """A certificate that says: this key is the site's of this name."""
    return (
        _issued(key, _name(consortium_of(signer), site), days=days, signer=signer, now=now)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer_key, _HASH)
    )


def make_request(key: PrivateKey, *, site: str) -> bytes:
    """A signing request in PEM, signed by the key that it is about."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)]))
        .sign(key, _HASH)
    )
    return request.public_bytes(serialization.Encoding.PEM)


def read_request(content: bytes, *, where: str) -> tuple[str, PublicKey]:
    """The site's name and key of a signing request.

    Raises:
        CertificateInvalidError: it is none, its signature is not by its own key, its key is weak or of
            another curve, or it names no site.
    """
    ask = "ask the site for a new one: cardionets-client request --site NAME --out DIR"
    if len(content) > MAXIMUM_REQUEST_BYTES:
        raise CertificateInvalidError("the file is too large for a request", where=where, remedy=ask)
    try:
        request = x509.load_pem_x509_csr(content)
        key = checked_public(request.public_key(), where=where)
        sound = request.is_signature_valid
        site = _common_name(request.subject)
    except (*UNREADABLE, x509.InvalidVersion, InvalidSignature) as error:
        raise CertificateInvalidError(
            "the file holds no signing request that can be read", where=where, remedy=ask
        ) from error
    if not sound:
        raise CertificateInvalidError(
            "the request is not signed by the key that it names", where=where, remedy=ask
        )
    if not _NAME.fullmatch(site):
        raise CertificateInvalidError(f"the request names no site: {site!r}", where=where, remedy=ask)
    return site, key


def read_certificate(content: bytes, *, where: str) -> Certificate:
    """One certificate in PEM.

    Raises:
        CertificateInvalidError: it is none, or not of the curve.
    """
    try:
        certificate = x509.load_pem_x509_certificate(content)
        checked_public(certificate.public_key(), where=where)
        # Its parts are read when they are asked for; one that cannot be read shall not be found out later.
        for name in (certificate.subject, certificate.issuer):
            _common_name(name)
        _ = certificate.extensions, certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except _UNREADABLE as error:
        raise CertificateInvalidError(
            "the file holds no certificate that can be read",
            where=where,
            remedy="restore the file, or ask the coordinator for a new kit",
        ) from error
    return certificate


def certificate_pem(certificate: Certificate) -> bytes:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_of(certificate: Certificate) -> PublicKey:
    """The public key that a certificate is about."""
    return checked_public(certificate.public_key(), where="certificate")


def site_of(certificate: Certificate) -> str:
    """The site that a certificate names."""
    return _common_name(certificate.subject)


def consortium_of(certificate: Certificate) -> str:
    """The consortium that a certificate names; empty where it names none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else ""


def names_of(certificate: Certificate) -> tuple[str, ...]:
    """Host names and IP addresses that a server's certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in extension.value)


def serial_of(certificate: Certificate) -> str:
    """The serial number in hexadecimal; it does not fit into a number of JSON."""
    return f"{certificate.serial_number:x}"


def normal_name(name: str) -> str:
    """A host name or IP address in its one form."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.rstrip(".").lower()


def _issued(
    key: PublicKey, subject: x509.Name, *, days: int, signer: Certificate, now: datetime | None
) -> x509.CertificateBuilder:
    moment = (now or datetime.now(UTC)).replace(microsecond=0)
    ends = min(moment + timedelta(days=days), signer.not_valid_after_utc)
    authority_key = key_of(signer)
    return (
        _builder(subject, signer.subject, key, moment - BACKDATED, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(consortium: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _alternative(name: str) -> x509.GeneralName:
    plain = normal_name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(plain))
    except ValueError:
        return x509.DNSName(plain)
