"""Secrets of 32 bytes in shares, any ``threshold`` of which give the secret back (Shamir 1979).

Comes in: a secret, or shares of it. Goes out: a share a holder, or the secret. Holders are numbered from 1. A
secret is shared as two halves of 16 bytes, each with a polynomial of its own over GF(2^128); the arithmetic
is pycryptodome's. That library checks little: too few shares give noise, the number 0 gives the secret away,
a number below 0 never returns. So everything is checked here first.

Two checks find what is wrong. The dealer publishes a digest of each share, and every holder sees to it that
its own share fits, so whoever hands in another one is known. The secret has a digest, or a public key, in the
dealer's signed advert; where all shares fit and the secret does not, the dealer dealt badly. Both digests
tell nothing, for what they are taken of is as random as a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from Crypto.Protocol.SecretSharing import Shamir

from cardionets_core.privacy.secure_sum.encoding import MAX_SITES
from cardionets_core.privacy.secure_sum.masks import framed
from cardionets_core.privacy.secure_sum.refusals import refusal

SECRET_BYTES = 32
_HALF = SECRET_BYTES // 2
Kind = Literal["seed", "key"]
"""Of a site's two secrets: the seed of its own mask, and the private key of its masks with others."""


def split(secret: bytes, *, threshold: int, holders: int) -> dict[int, bytes]:
    """A share of 32 bytes for each of the holders 1 to ``holders``.

    Args:
        secret: 32 bytes.
        threshold: as many shares give the secret, one fewer tells nothing of it; at least 2.
        holders: at least ``threshold``.

    Raises:
        SecureSumError: ``threshold-too-low``, ``too-few-sites`` or ``malformed``.
    """
    if threshold < 2:
        raise refusal("threshold-too-low", f"with a threshold of {threshold} each share is the secret")
    if not threshold <= holders <= MAX_SITES:
        raise refusal(
            "too-few-sites", f"{holders} holders cannot hold shares with a threshold of {threshold}"
        )
    if len(secret) != SECRET_BYTES:
        raise refusal("malformed", f"a secret has {len(secret)} bytes, not {SECRET_BYTES}")
    halves = [Shamir.split(threshold, holders, half, ssss=False) for half in (secret[:_HALF], secret[_HALF:])]
    return {first[0]: first[1] + second[1] for first, second in zip(*halves, strict=True)}


def combine(shares: Sequence[tuple[int, bytes]], *, threshold: int) -> bytes:
    """The secret, from the ``threshold`` shares of the lowest numbers.

    Whether it is the right one, a digest of it or its public key must tell: shares that were changed give
    noise.

    Args:
        shares: each with the number of its holder.
        threshold: with which they were made.

    Raises:
        SecureSumError: ``too-few-sites`` or ``malformed``.
    """
    if threshold < 2 or len(shares) < threshold:
        raise refusal("too-few-sites", f"{len(shares)} shares came where {max(threshold, 2)} are needed")
    if any(type(holder) is not int or not 1 <= holder <= MAX_SITES for holder, _ in shares):
        raise refusal("malformed", "a share has a number that no holder has")
    if len({holder for holder, _ in shares}) < len(shares):
        raise refusal("site-twice", "two shares have the number of one holder")
    if any(len(share) != SECRET_BYTES for _, share in shares):
        raise refusal("malformed", f"a share is not {SECRET_BYTES} bytes long")
    used = sorted(shares)[:threshold]
    first: bytes = Shamir.combine([(holder, share[:_HALF]) for holder, share in used], ssss=False)
    second: bytes = Shamir.combine([(holder, share[_HALF:]) for holder, share in used], ssss=False)
    return first + second


def seed_digest(seed: bytes, *, session: bytes, site: str) -> bytes:
    """Stands for the seed of a site's own mask in its advert."""
    return hashlib.sha256(framed("cardionets secure sum 1", "seed", session, site, seed)).digest()


def share_digest(share: bytes, *, session: bytes, dealer: str, holder: str, kind: Kind) -> bytes:
    """Stands for one share beside its ciphertext."""
    parts = ("cardionets secure sum 1", "share", session, dealer, holder, kind, share)
    return hashlib.sha256(framed(*parts)).digest()
