"""Secret randomness: the key stream itself, its distribution, and what it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from cardionets_core.privacy.noise import PIECE, SecretRandomness, public_key_of

KEY = public_key_of(7, "test")


def test_uniform_numbers_are_the_top_bits_of_the_aes_stream():
    # One block after the other, encrypted by hand in ECB: counter mode from its definition.
    block = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    stream = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range(50))
    wanted = np.frombuffer(stream, dtype="<u8")
    found = SecretRandomness(KEY)
    first, second = found.uniform(37), found.uniform(63)
    assert np.array_equal(np.concatenate([first, second]) * 2.0**53, wanted >> np.uint64(11))
    assert (first < 1.0).all() and (first >= 0.0).all()


@pytest.mark.parametrize("count", [1, 2, 3, 1001, 2 * PIECE + 5])
def test_any_number_of_normal_values_comes(count: int) -> None:
    found = SecretRandomness(KEY).normal(count)
    assert found.shape == (count,) and found.dtype == torch.float64 and bool(torch.isfinite(found).all())


def test_normal_values_are_normal_and_uncorrelated():
    found = SecretRandomness(KEY).normal(200_001).numpy()
    assert stats.kstest(found, "norm").pvalue > 1e-3
    assert abs(found.std() - 1.0) < 0.01 and stats.kurtosis(found) < 0.1
    half = len(found) // 2
    # Both halves come from the same radii: their product must have no mean all the same.
    assert abs(np.mean(found[:half] * found[half : 2 * half])) < 0.01
    assert np.abs(found).max() > 3.9


def test_without_a_key_nothing_repeats_and_with_one_all_does():
    a, b = SecretRandomness(), SecretRandomness()
    assert a.is_secret and not torch.equal(a.normal(8), b.normal(8))
    c, d = SecretRandomness(KEY), SecretRandomness(KEY)
    assert not c.is_secret and torch.equal(c.normal(8), d.normal(8))
    assert np.array_equal(c.generator().integers(0, 100, 9), d.generator().integers(0, 100, 9))
    assert KEY.hex() not in repr(c)


def test_noise_is_added_with_the_asked_deviation_and_none_with_zero():
    values = [torch.full((300, 200), 5.0), torch.zeros(7)]
    SecretRandomness(KEY).add_normal(values, deviation=0.0)
    assert torch.equal(values[0], torch.full((300, 200), 5.0))
    SecretRandomness(KEY).add_normal(values, deviation=2.5)
    assert float(values[0].mean()) == pytest.approx(5.0, abs=0.05)
    assert float(values[0].std()) == pytest.approx(2.5, rel=0.02)
    assert bool(values[1].all()) and values[1].dtype == torch.float32


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        SecretRandomness(bytes(16))
