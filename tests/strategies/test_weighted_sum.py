"""The compiled mean has the bits of its definition, whatever the pieces, and says where a file is torn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import CheckpointError
from strategies import StoredModule
from strategies.fedavg import weighted_means
from strategies.weighted_sum import PIECE_VALUES, mean_of, write_sum, write_weighted_mean


def stored(folder, arrays, samples):
    replies = []
    for number, (values, count) in enumerate(zip(arrays, samples, strict=True)):
        path = folder / f"{number}.f32"
        values.astype("<f4").tofile(path)
        replies.append(StoredModule(site=f"s{number}", samples=count, path=path, size=values.size))
    return replies


def drawn(size, seed):
    generator = np.random.default_rng(seed)
    spread = generator.normal(size=size) * 10.0 ** generator.integers(-42, 30, size)
    spread[generator.random(size) < 0.05] = -0.0
    return spread.astype(np.float32)


def by_definition(arrays, samples):
    """Products and sums in numpy's float64, one rounding each, in the order of the sites."""
    sums = np.zeros(arrays[0].size)
    for values, count in zip(arrays, samples, strict=True):
        sums = sums + np.float64(count) * values.astype(np.float64)
    return sums / float(sum(samples))


@pytest.mark.parametrize(
    "size", [0, 1, 7, PIECE_VALUES - 1, PIECE_VALUES, PIECE_VALUES + 1, 3 * PIECE_VALUES + 5]
)
@pytest.mark.parametrize("sites", [1, 2, 9])
def test_the_file_has_the_bits_of_the_definition(tmp_path, size, sites):
    arrays = [drawn(size, seed) for seed in range(sites)]
    samples = [2**29 - 1 - 3**site for site in range(sites)]
    write_weighted_mean(stored(tmp_path, arrays, samples), tmp_path / "mean.f32")
    wanted = by_definition(arrays, samples).astype("<f4")
    assert (tmp_path / "mean.f32").read_bytes() == wanted.tobytes()


@settings(deadline=None)  # the first example compiles
@given(samples=st.lists(st.integers(1, 2**60), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_tile_has_the_bits_of_the_definition_also_where_products_are_rounded(samples, seed):
    arrays = [drawn(301, seed + site) for site in range(len(samples))]
    assert mean_of(arrays, samples).tobytes() == by_definition(arrays, samples).tobytes()


def test_tiles_and_file_agree(tmp_path):
    arrays = [drawn(PIECE_VALUES + 99, seed) for seed in range(4)]
    replies = stored(tmp_path, arrays, [5, 1, 7, 2])
    write_weighted_mean(replies, tmp_path / "mean.f32")
    tiles = np.concatenate(list(weighted_means(replies))).astype("<f4")
    assert tiles.tobytes() == (tmp_path / "mean.f32").read_bytes()


@pytest.mark.parametrize("rest", [0.0, -0.0, 0.25, -3.5])
def test_a_rest_of_the_module_that_was_sent_goes_in_first(tmp_path, rest):
    arrays, factors = [drawn(PIECE_VALUES + 9, seed) for seed in range(3)], [0.5, -2.0, 7.0]
    current = drawn(PIECE_VALUES + 9, 8)
    current.astype("<f4").tofile(tmp_path / "current.f32")
    replies, target = stored(tmp_path, arrays, [1, 1, 1]), tmp_path / "sum.f32"
    write_sum(replies, factors, total=5.5, target=target, current=tmp_path / "current.f32", rest=rest)
    sums = np.zeros(current.size) + (rest * current.astype(np.float64) if rest else 0.0)
    for factor, values in zip(factors, arrays, strict=True):
        sums = sums + factor * values.astype(np.float64)
    assert target.read_bytes() == (sums / 5.5).astype("<f4").tobytes()


def test_an_older_and_longer_file_is_replaced(tmp_path):
    target = tmp_path / "mean.f32"
    target.write_bytes(b"x" * 1000)
    write_weighted_mean(stored(tmp_path, [drawn(3, 1)], [4]), target)
    assert target.read_bytes() == drawn(3, 1).tobytes()


def test_a_torn_reply_is_named(tmp_path):
    replies = stored(tmp_path, [drawn(100, 0), drawn(100, 1)], [1, 1])
    replies[1].path.write_bytes(replies[1].path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"1\.f32 is shorter") as torn:
        write_weighted_mean(replies, tmp_path / "mean.f32")
    assert torn.value.where == str(replies[1].path)
