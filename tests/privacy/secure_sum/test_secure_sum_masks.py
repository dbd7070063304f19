"""Masks are what another way of making them gives, cancel, and differ by session, use and pair."""

from __future__ import annotations

import hashlib
import hmac
import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cardionets_core.privacy.secure_sum.agreement import agreed, make_private, pair_mask, public_of, self_mask
from cardionets_core.privacy.secure_sum.masks import TILE_BYTES, Mask, apply_masks, derived_key, framed

SECRET, SESSION = bytes(range(32)), b"s" * 32


def stream(key: bytes, nbytes: int) -> bytes:
    """Counter mode spelt out: the cipher of 0, 1, 2, ... in single blocks."""
    blocks = b"".join(number.to_bytes(16, "big") for number in range(-(-nbytes // 16)))
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)[:nbytes]


def test_keys_are_those_of_hkdf_spelt_out():
    """RFC 5869: extract with the salt, expand with the info, one block of 32 bytes."""
    pseudorandom = hmac.digest(SESSION, SECRET, "sha256")
    info = framed("cardionets secure sum 1", "pair-mask", "site-a", "site-b")
    expected = hmac.digest(pseudorandom, info + b"\x01", "sha256")
    found = derived_key(SECRET, session=SESSION, use="pair-mask", names=["site-a", "site-b"])
    assert found == expected


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("size", [1, 7, 1000, TILE_BYTES // 4, TILE_BYTES // 4 + 1, 3 * TILE_BYTES // 4 - 1])
def test_streams_are_those_of_the_cipher_spelt_out(dtype, size):
    keys = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    vector = np.arange(size, dtype=dtype)
    rows = [np.frombuffer(stream(key, vector.nbytes), dtype=dtype) for key in keys]
    expected = vector + rows[0] - rows[1] + rows[2]
    apply_masks(vector, [Mask(keys[0], True), Mask(keys[1], False), Mask(keys[2], True)])
    np.testing.assert_array_equal(vector, expected)


def test_two_sites_masks_cancel_and_no_other_two_do():
    private = {name: make_private() for name in ("site-a", "site-b", "site-c")}

    def mask(own, other, session=SESSION):
        secret = agreed(private[own], public_of(private[other]), site=other)
        return pair_mask(secret, session=session, own=own, other=other)

    vector = np.zeros(100, dtype=np.uint64)
    apply_masks(vector, [mask("site-a", "site-b"), mask("site-b", "site-a")])
    assert not vector.any()
    apply_masks(vector, [mask("site-a", "site-b", b"t" * 32), mask("site-b", "site-a")])
    assert vector.all()


def test_every_use_session_pair_and_direction_has_a_key_of_its_own():
    uses, sessions = ("pair-mask", "self-mask", "channel"), (SESSION, b"t" * 32)
    names = (["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", "b", ""], ["", "a", "b"])
    keys = [
        derived_key(SECRET, session=session, use=use, names=row)
        for session, use, row in itertools.product(sessions, uses, names)
    ]
    assert len(set(keys)) == len(keys)
    assert self_mask(SECRET, session=SESSION, own="a").key in keys


def test_framed_parts_cannot_be_taken_for_others():
    rows = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), (b"a", b"b", b"c")]
    assert len({framed(*row) for row in rows}) == len(rows)


def test_a_key_is_not_shown():
    mask = Mask(SECRET, True)
    assert "x01" not in repr(mask) and SECRET.hex() not in repr(mask)
