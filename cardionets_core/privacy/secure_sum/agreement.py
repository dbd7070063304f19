"""Two sites agree on a secret through a server, and send each other what it cannot read.

Comes in: private and public X25519 keys as raw bytes. Goes out: a key that only the two know, and sealed
bytes. Whose a public key is, the signed adverts say; nothing here can tell.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cardionets_core.privacy.secure_sum.masks import Mask, derived_key
from cardionets_core.privacy.secure_sum.refusals import refusal

NONCE_BYTES = 12
TAG_BYTES = 16
_FIELD_PRIME = (1 << 255) - 19
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
"""Any private key finds a public key of small order: what it agrees on with one is zero."""


def make_private() -> bytes:
    """A new private key of 32 bytes from the system's generator."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """The public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def check_public(public: bytes, *, site: str) -> None:
    """Whether a public key is of full order and spelt in the one way.

    Raises:
        SecureSumError: ``key-weak``: what is agreed with it would be zero, or it has a second spelling.
    """
    canonical = len(public) == 32 and int.from_bytes(public, "little") < _FIELD_PRIME
    if not canonical or _exchanged(_PROBE, public) is None:
        raise refusal(
            "key-weak", f"{site} sent a public key with which nothing secret can be agreed", site=site
        )


def agreed(private: bytes, public: bytes, *, site: str) -> bytes:
    """The secret that a private key and the public key of another site have in common.

    Raises:
        SecureSumError: ``key-weak``: it is zero.
    """
    found = _exchanged(X25519PrivateKey.from_private_bytes(private), public)
    if found is None:
        raise refusal(
            "key-weak", f"{site} sent a public key with which nothing secret can be agreed", site=site
        )
    return found


def _exchanged(private: X25519PrivateKey, public: bytes) -> bytes | None:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def pair_mask(secret: bytes, *, session: bytes, own: str, other: str) -> Mask:
    """The mask that two sites share, with the sign that ``own`` gives it: the earlier name adds it.

    Args:
        secret: what the mask keys of the two agree on.
        session: digest of the session's name.
        own: the site whose vector is masked.
        other: its peer, which takes the opposite sign.
    """
    names = sorted((own, other))
    return Mask(derived_key(secret, session=session, use="pair-mask", names=names), adds=own == names[0])


def self_mask(seed: bytes, *, session: bytes, own: str) -> Mask:
    """The mask that a site has for itself; it adds it, and the server takes it off."""
    return Mask(derived_key(seed, session=session, use="self-mask", names=[own]), adds=True)


def seal(content: bytes, *, secret: bytes, session: bytes, sender: str, receiver: str, label: bytes) -> bytes:
    """Encrypt for one receiver; nonce, ciphertext and tag.

    Args:
        content: the plain text.
        secret: what the channel keys of the two agree on.
        session: digest of the session's name.
        sender: and
        receiver: each direction has a key of its own.
        label: what goes along in clear, and cannot be changed.
    """
    key = derived_key(secret, session=session, use="channel", names=[sender, receiver])
    # Random, for a site that was stopped before it stored its state deals once more under the same key.
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, label)


def opened(
    sealed: bytes, *, secret: bytes, session: bytes, sender: str, receiver: str, label: bytes
) -> bytes | None:
    """Decrypt; None where anything was changed, or is of another sender, receiver, session or label."""
    key = derived_key(secret, session=session, use="channel", names=[sender, receiver])
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], label)
    except (InvalidTag, ValueError):
        return None
