"""Private and public keys: EC P-384, the one curve of a consortium.

Comes in: bytes from a file, a kit or a request. Goes out: key objects, and the forms in which others read
them: OpenSSH (Flower's SuperNode and its registration), PEM (servers), SHA-256 fingerprints (people).
"""

from __future__ import annotations

import hashlib
import re
import secrets

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cardionets_core.errors import CertificateInvalidError, UsageError

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

CURVE = "P-384"
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    NotImplementedError,
    UnsupportedAlgorithm,
)
"""What cryptography raises over strange bytes; a compressed point is not implemented, for one."""
_SSH_HEAD = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_PASSPHRASE_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_PASSPHRASE_GROUPS = 6
_PASSPHRASE_GROUP = 5


def make_key() -> PrivateKey:
    """A new private key from the system's generator."""
    return ec.generate_private_key(ec.SECP384R1())


def checked_public(key: object, *, where: str) -> PublicKey:
    """The key, if it is one of the curve that every member uses.

    Raises:
        CertificateInvalidError: it is of another kind, or of another curve.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        kind = type(key).__name__.removesuffix("PublicKey").strip("_")
        raise _wrong_key(f"the key is of the kind {kind}, not an elliptic-curve key", where)
    if not isinstance(key.curve, ec.SECP384R1):
        raise _wrong_key(f"the key is of the curve {key.curve.name}, not {CURVE}", where)
    return key


def _wrong_key(what: str, where: str) -> CertificateInvalidError:
    return CertificateInvalidError(
        what, where=where, remedy=f"make an EC {CURVE} key, as cardionets-client request does"
    )


def read_private(content: bytes, *, where: str, passphrase: str | None = None) -> PrivateKey:
    """A private key in OpenSSH or PEM form.

    Args:
        content: of the file.
        where: for the error.
        passphrase: of an encrypted key.

    Raises:
        CertificateInvalidError: it is no such key, or the passphrase does not open it.
    """
    secret = passphrase.encode() if passphrase is not None else None
    load = (
        serialization.load_ssh_private_key
        if content.startswith(_SSH_HEAD)
        else serialization.load_pem_private_key
    )
    try:
        key = load(content, secret)
    except UNREADABLE as error:
        if is_encrypted(content):
            raise CertificateInvalidError(
                "the private key is encrypted, and no passphrase was given"
                if passphrase is None
                else "the passphrase does not open the private key",
                where=where,
                remedy="give the file with the passphrase that the coordinator sent apart from the kit: "
                "--passphrase-file FILE",
            ) from error
        raise CertificateInvalidError(
            "the file holds no private key that can be read",
            where=where,
            remedy="restore the file from its backup; never write a new key over it",
        ) from error
    checked_public(key.public_key(), where=where)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _wrong_key("the key cannot sign", where)
    return key


def is_encrypted(content: bytes) -> bool:
    """Whether a PEM private key asks for a passphrase."""
    return b"ENCRYPTED PRIVATE KEY" in content


def private_openssh(key: PrivateKey) -> bytes:
    """A private key as Flower's SuperNode reads it; in clear, so the file's mode is its protection."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def private_pem(key: PrivateKey, *, passphrase: str | None = None) -> bytes:
    """A private key as PKCS #8, encrypted where a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def read_public(content: bytes, *, where: str) -> PublicKey:
    """A public key in OpenSSH, PEM or DER form.

    Raises:
        CertificateInvalidError: it is none, or not of the curve.
    """
    if content.startswith(b"-----"):
        load = serialization.load_pem_public_key
    elif content.startswith((b"ecdsa-", b"ssh-", b"sk-")):
        load = serialization.load_ssh_public_key
    else:
        load = serialization.load_der_public_key
    try:
        key = load(content)
    except UNREADABLE as error:
        raise CertificateInvalidError(
            "there is no public key that can be read", where=where, remedy="ask for the key again"
        ) from error
    return checked_public(key, where=where)


def public_openssh(key: PublicKey) -> str:
    """A public key on one line, without a comment, as ``flwr supernode register`` takes it."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def public_der(key: PublicKey) -> bytes:
    """A public key as SubjectPublicKeyInfo; one key has one such form."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_pem(key: PublicKey) -> bytes:
    """A public key in the form that Flower's fleet calls carry."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of the key's one form, 64 hexadecimal digits."""
    return hashlib.sha256(public_der(key)).hexdigest()


def spoken(digest: str) -> str:
    """A fingerprint in groups of four, to be read aloud."""
    return " ".join(digest[start : start + 4] for start in range(0, len(digest), 4))


def heard(text: str) -> str:
    """A fingerprint as a person types it: with or without blanks, colons and capitals.

    Raises:
        UsageError: it is not a whole one.
    """
    digest = re.sub(r"[\s:]", "", text).lower().removeprefix("sha256")
    if not _FINGERPRINT.fullmatch(digest):
        raise UsageError(
            f"{text!r} is no fingerprint: that is 64 hexadecimal digits",
            where="--fingerprint",
            remedy="give all of it; a part of a fingerprint proves nothing",
        )
    return digest


def make_passphrase() -> str:
    """A passphrase that can be read aloud, 30 letters and digits: 150 bits."""
    groups = (
        "".join(secrets.choice(_PASSPHRASE_ALPHABET) for _ in range(_PASSPHRASE_GROUP))
        for _ in range(_PASSPHRASE_GROUPS)
    )
    return "-".join(groups)
