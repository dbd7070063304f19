"""Who signed a release: a detached signature over its list of checksums.

Comes in: the list and a key, or the list and ``signature.json``. Goes out: the document, or who signed. A
release can only prove to be whole and of the key that it names; whether that is the right one, a receiver
knows from a certificate or fingerprint that came by another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.errors import CertificateInvalidError
from cardionets_core.plain_json import read_bounded, read_json
from cardionets_core.release.layout import CHECKSUMS, SIGNATURE
from cardionets_core.trust.certificates import (
    Certificate,
    certificate_pem,
    consortium_of,
    key_of,
    read_certificate,
)
from cardionets_core.trust.keys import PrivateKey, PublicKey, fingerprint, public_pem, read_public, spoken
from cardionets_core.trust.signatures import fits, sign
from cardionets_core.trust.validity import check_times

SCHEMA_VERSION = 1
PURPOSE = "cardionets-release-1"
ALGORITHM = "ECDSA on P-384 with SHA-384, DER, over: length of purpose (4 bytes, big-endian), purpose, file"
LARGEST_BYTES = 20_000
_CERTIFICATE_HEAD = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Whose key signed.

    Attributes:
        consortium: as the certificate says; empty where the key has none.
        fingerprint: SHA-256 of the public key.
        vouched: the receiver holds this key's certificate or fingerprint.
    """

    consortium: str
    fingerprint: str
    vouched: bool

    @property
    def words(self) -> str:
        """For people."""
        name = f"the consortium {self.consortium!r}" if self.consortium else "a key without a certificate"
        told = f"{name}, fingerprint {spoken(self.fingerprint)}"
        return told if self.vouched else f"{told} (compare it, or give --trust: any key can name itself so)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What the receiver holds; nothing by default.

    Attributes:
        fingerprint: of the key that must have signed; empty for none.
        source: where it comes from, for errors.
    """

    fingerprint: str = ""
    source: str = ""


def trusted_file(path: Path) -> Trusted:
    """The key of a certificate, or a public key, in PEM.

    Raises:
        CertificateInvalidError: it is neither, or the certificate is outside of its time.
    """
    where = str(path)
    try:
        content = read_bounded(path, most_bytes=LARGEST_BYTES)
    except (OSError, ValueError) as error:
        raise CertificateInvalidError(
            "the file of whom to trust cannot be read", where=where, remedy="name the consortium's ca.crt"
        ) from error
    if _CERTIFICATE_HEAD not in content:
        return Trusted(fingerprint=fingerprint(read_public(content, where=where)), source=where)
    certificate = read_certificate(content, where=where)
    check_times(certificate, what="the certificate of whom to trust", where=where)
    return Trusted(fingerprint=fingerprint(key_of(certificate)), source=where)


def signature_document(
    checksums: bytes, key: PrivateKey, *, certificate: Certificate | None
) -> dict[str, Any]:
    """What ``signature.json`` holds. Equal lists and keys give equal documents.

    Args:
        checksums: the list's bytes.
        key: that signs.
        certificate: of that key, if it has one.
    """
    public = key.public_key()
    return {
        "schema_version": SCHEMA_VERSION,
        "signs": CHECKSUMS,
        "algorithm": ALGORITHM,
        "purpose": PURPOSE,
        "signature": sign(key, checksums, purpose=PURPOSE).hex(),
        "public_key": public_pem(public).decode(),
        "fingerprint": fingerprint(public),
        "certificate": None if certificate is None else certificate_pem(certificate).decode(),
    }


def check_signature(folder: Path, checksums: bytes, trusted: Trusted) -> Signer | None:
    """Who signed a release; None where nobody did and nobody was asked for.

    Raises:
        CertificateInvalidError: the signature is torn, over another list, by another key than the trusted
            one or with a certificate outside of its time; or it is absent though a signer was asked for.
    """
    where = str(folder / SIGNATURE)
    if not (folder / SIGNATURE).exists():
        if trusted.fingerprint:
            raise _refused("the release is unsigned, and a signature was asked for", where)
        return None
    try:
        found = read_json(folder / SIGNATURE, most_bytes=LARGEST_BYTES)
        version, signature = found["schema_version"], bytes.fromhex(found["signature"])
        public, certificate = found["public_key"].encode(), found["certificate"]
        given = None if certificate is None else certificate.encode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused("the signature cannot be read", where) from error
    if version != SCHEMA_VERSION:
        raise _refused(f"the signature is of schema version {version}, not {SCHEMA_VERSION}", where)
    key = read_public(public, where=where)
    if not fits(key, signature, checksums, purpose=PURPOSE):
        raise _refused("the signature is not over this list of checksums", where)
    digest = fingerprint(key)
    consortium = "" if given is None else _consortium(given, key, where=where)
    if trusted.fingerprint and trusted.fingerprint != digest:
        raise _refused(
            f"the release is signed by another key ({spoken(digest)}) than the one that is trusted",
            f"{where}, {trusted.source}",
        )
    return Signer(consortium=consortium, fingerprint=digest, vouched=bool(trusted.fingerprint))


def _consortium(pem: bytes, key: PublicKey, *, where: str) -> str:
    certificate = read_certificate(pem, where=where)
    if fingerprint(key_of(certificate)) != fingerprint(key):
        raise _refused("the signature's certificate is of another key than the one that signed", where)
    check_times(certificate, what="the signer's certificate", where=where)
    return consortium_of(certificate)


def _refused(what: str, where: str) -> CertificateInvalidError:
    return CertificateInvalidError(
        what, where=where, remedy="use no part of it; ask the consortium for the release and its fingerprint"
    )
