"""Detached signatures: deterministic ECDSA (RFC 6979) with SHA-384, under a key that a certificate names.

Comes in: bytes and a key. Goes out: a signature, or whether one fits. A signature never says for which use it
was made, so each use passes its own ``purpose``, and one cannot be shown for another.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from cardionets_core.trust.keys import PrivateKey, PublicKey

_HASH = hashes.SHA384()


def sign(key: PrivateKey, content: bytes, *, purpose: str) -> bytes:
    """A signature over the content for one purpose."""
    return key.sign(_framed(content, purpose), ec.ECDSA(_HASH, deterministic_signing=True))


def fits(key: PublicKey, signature: bytes, content: bytes, *, purpose: str) -> bool:
    """Whether the signature is by that key, over that content, for that purpose."""
    try:
        key.verify(signature, _framed(content, purpose), ec.ECDSA(_HASH))
    except InvalidSignature:
        return False
    return True


def sign_as_node(key: PrivateKey, content: bytes) -> bytes:
    """A signature as a SuperNode of Flower makes it: with SHA-256, and without a purpose."""
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


def _framed(content: bytes, purpose: str) -> bytes:
    # The length keeps the end of the purpose apart from the beginning of the content.
    head = purpose.encode()
    return len(head).to_bytes(4, "big") + head + content
