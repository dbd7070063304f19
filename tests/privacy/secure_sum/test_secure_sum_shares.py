"""Any threshold of shares is the secret, one fewer is anything; against arithmetic written for this test."""

from __future__ import annotations

import itertools
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.privacy.secure_sum.shares import combine, seed_digest, share_digest, split

FIELD = (1 << 128) | 0x87


def times(a: int, b: int) -> int:
    """In GF(2^128), modulo x^128 + x^7 + x^2 + x + 1."""
    product = 0
    for bit in range(128):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(254, 127, -1):
        if product >> bit & 1:
            product ^= FIELD << (bit - 128)
    return product


def inverse(a: int) -> int:
    """By Fermat: a to the power of 2^128 - 2."""
    found, power = 1, a
    for _ in range(127):
        power = times(power, power)
        found = times(found, power)
    return found


def at(place: int, points: list[tuple[int, int]]) -> int:
    """The value at a place of the polynomial through some points (Lagrange)."""
    total = 0
    for number, (x, y) in enumerate(points):
        for other, (z, _) in enumerate(points):
            if other != number:
                y = times(times(y, place ^ z), inverse(x ^ z))
        total ^= y
    return total


def halves(share: bytes) -> tuple[int, int]:
    return int.from_bytes(share[:16], "big"), int.from_bytes(share[16:], "big")


@given(secret=st.binary(min_size=32, max_size=32), data=st.data())
def test_every_choice_of_enough_shares_is_the_secret(secret, data):
    holders = data.draw(st.integers(2, 6))
    threshold = data.draw(st.integers(2, holders))
    shares = split(secret, threshold=threshold, holders=holders)
    assert list(shares) == list(range(1, holders + 1))
    for chosen in itertools.combinations(shares.items(), threshold):
        assert combine(list(reversed(chosen)), threshold=threshold) == secret
    assert combine(list(shares.items()), threshold=threshold) == secret


@pytest.mark.parametrize(("threshold", "holders"), [(2, 3), (3, 4)])
def test_the_shares_lie_on_a_polynomial_of_the_field(threshold, holders):
    secret = bytes(3) + secrets.token_bytes(29)
    shares = split(secret, threshold=threshold, holders=holders)
    for half in (0, 1):
        points = [(number, halves(share)[half]) for number, share in shares.items()]
        assert at(0, points[:threshold]) == halves(secret)[half]
        assert at(points[-1][0], points[:threshold]) == points[-1][1]


def test_one_share_fewer_fits_every_secret():
    """For any other secret there is a share that would make it of the same t - 1 shares."""
    shares = split(b"\x07" * 32, threshold=3, holders=5)
    known = [(2, shares[2]), (5, shares[5])]
    for other in (bytes(32), b"\xff" * 32, secrets.token_bytes(32)):
        third = b"".join(
            at(1, [(0, halves(other)[half]), *((n, halves(s)[half]) for n, s in known)]).to_bytes(16, "big")
            for half in (0, 1)
        )
        assert combine([*known, (1, third)], threshold=3) == other


def test_two_secrets_are_dealt_anew_each_time():
    first, second = (split(bytes(32), threshold=2, holders=3) for _ in range(2))
    assert not set(first.values()) & set(second.values())
    assert all(share[:16] != share[16:] for share in first.values()), "each half has a polynomial of its own"


def test_what_is_no_set_of_shares_is_refused(refused):
    shares = list(split(b"k" * 32, threshold=3, holders=4).items())
    for few in (shares[:2], shares[:1], []):
        with refused("too-few-sites"):
            combine(few, threshold=3)
    with refused("too-few-sites"):
        combine(shares[:1], threshold=1)
    with refused("site-twice"):
        combine([shares[0], shares[0], shares[1]], threshold=3)
    with refused("site-twice"):
        combine([shares[0], (1, shares[1][1]), shares[2]], threshold=3)
    for wrong in (
        (1, b"s" * 31),
        (1, b"s" * 33),
        (1, b""),
        (0, b"s" * 32),
        (-1, b"s" * 32),
        (257, b"s" * 32),
    ):
        with refused("malformed"):
            combine([wrong, *shares[1:3]], threshold=3)
    for number in (True, 1.0, "1"):
        with refused("malformed"):
            combine([(number, shares[0][1]), *shares[1:3]], threshold=3)


def test_what_cannot_be_dealt_is_refused(refused):
    for threshold in (1, 0, -2):
        with refused("threshold-too-low"):
            split(b"k" * 32, threshold=threshold, holders=4)
    for holders in (2, 0, 257):
        with refused("too-few-sites"):
            split(b"k" * 32, threshold=3, holders=holders)
    for secret in (b"", b"k" * 16, b"k" * 31, b"k" * 33):
        with refused("malformed"):
            split(secret, threshold=2, holders=3)


def test_digests_stand_for_one_secret_in_one_place():
    about = {"session": b"s" * 32, "dealer": "a", "holder": "b", "kind": "seed"}
    changed = [{"session": b"t" * 32}, {"dealer": "c"}, {"holder": "c"}, {"kind": "key"}]
    found = {share_digest(b"k" * 32, **(about | change)) for change in [{}, *changed]}
    found.add(share_digest(b"l" * 32, **about))
    found |= {seed_digest(b"k" * 32, session=b"s" * 32, site=site) for site in ("a", "b")}
    assert len(found) == 8
