"""Is a certificate good, here and now? In words that say which clock, name or authority is wrong.

Comes in: a certificate, its authority, a moment. Goes out: nothing, or one error. TLS asks the same questions
during a handshake; this answers before one is tried, and for certificates of sites, which TLS never sees.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from cardionets_core.errors import CertificateInvalidError
from cardionets_core.trust.certificates import (
    Certificate,
    consortium_of,
    names_of,
    normal_name,
    site_of,
)

DAY_S = 86_400.0


def days_left(certificate: Certificate, *, now: datetime | None = None) -> float:
    """Days until the end; negative once it is over."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).total_seconds() / DAY_S


def check_times(certificate: Certificate, *, what: str, where: str, now: datetime | None = None) -> None:
    """Refuse a certificate outside of its time.

    Args:
        certificate: any.
        what: whose it is, to begin the sentence: ``the server's certificate``.
        where: the file or the address.
        now: default the machine's time.

    Raises:
        CertificateInvalidError: it is expired or not yet valid; says since or in how many days.
    """
    moment = now or datetime.now(UTC)
    left = days_left(certificate, now=moment)
    if left <= 0:
        raise CertificateInvalidError(
            f"{what} expired {span(-left)} ago ({_day(certificate.not_valid_after_utc)})",
            where=where,
            remedy="the coordinator renews it: cardionets-server renew; if the date of this machine "
            "is wrong, set its clock",
        )
    ahead = (certificate.not_valid_before_utc - moment).total_seconds() / DAY_S
    if ahead > 0:
        raise CertificateInvalidError(
            f"{what} is not yet valid: it begins in {span(ahead)} ({_day(certificate.not_valid_before_utc)})",
            where=where,
            remedy="set this machine's clock; if it is right, the clock of the coordinator was wrong",
        )


def check_authority(certificate: Certificate, authority: Certificate, *, what: str, where: str) -> None:
    """Refuse a certificate that another authority signed.

    Raises:
        CertificateInvalidError: names both consortiums.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
        issuer = certificate.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        other = str(issuer[0].value) if issuer else "unknown"
        raise CertificateInvalidError(
            f"{what} is of another authority (that of {other!r}, not of {consortium_of(authority)!r})",
            where=where,
            remedy="use the certificate and the kit of this consortium's coordinator",
        ) from error


def check_server(
    certificate: Certificate,
    authority: Certificate,
    *,
    name: str,
    where: str,
    now: datetime | None = None,
) -> None:
    """Refuse what cannot be the server's certificate under this name.

    Raises:
        CertificateInvalidError: of another authority, outside of its time, for no server or another name.
    """
    what = "the server's certificate"
    check_authority(certificate, authority, what=what, where=where)
    check_times(certificate, what=what, where=where, now=now)
    _check_purpose(certificate, ExtendedKeyUsageOID.SERVER_AUTH, what=what, where=where)
    names = names_of(certificate)
    if normal_name(name) not in {normal_name(found) for found in names}:
        raise CertificateInvalidError(
            f"{what} is for another name: {name!r} is not among {', '.join(names) or 'none'}",
            where=where,
            remedy="the coordinator adds the name in server.yaml (names) and runs: "
            "cardionets-server renew DIR --server",
        )


def check_site(
    certificate: Certificate,
    authority: Certificate,
    *,
    site: str,
    where: str,
    now: datetime | None = None,
) -> None:
    """Refuse what cannot be this site's certificate.

    Raises:
        CertificateInvalidError: of another authority, outside of its time, for no site or another one.
    """
    what = "the site's certificate"
    check_authority(certificate, authority, what=what, where=where)
    check_times(certificate, what=what, where=where, now=now)
    _check_purpose(certificate, ExtendedKeyUsageOID.CLIENT_AUTH, what=what, where=where)
    if site_of(certificate) != site:
        raise CertificateInvalidError(
            f"{what} is for another name: {site_of(certificate)!r}, not {site!r}",
            where=where,
            remedy="use the kit that was made for this site",
        )


def span(days: float) -> str:
    """A span in words: days, or hours where it is less than two days."""
    if days >= 2:
        return f"{int(days)} days"
    hours = int(days * 24)
    return f"{hours} hours" if hours != 1 else "1 hour"


def _check_purpose(
    certificate: Certificate, purpose: x509.ObjectIdentifier, *, what: str, where: str
) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([])
    if purpose not in usage:
        raise CertificateInvalidError(
            f"{what} was not issued for that purpose",
            where=where,
            remedy="use the certificate that cardionets-server made for it",
        )


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
