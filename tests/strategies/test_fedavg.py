"""FedAvg's identities: one site, equal replies, the order of sites, the closed form, tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import ConfigError, UnknownNameError
from strategies import FedAvg, StoredModule, make_strategy
from strategies.strategy import tiles


def stored(folder, arrays, samples):
    replies = []
    for number, (values, count) in enumerate(zip(arrays, samples, strict=True)):
        path = folder / f"{number}.f32"
        values.astype("<f4").tofile(path)
        replies.append(StoredModule(site=f"s{number}", samples=count, path=path, size=values.size))
    return replies


def combined(folder, arrays, samples):
    target = folder / "out.f32"
    FedAvg({}).combine(stored(folder, arrays, samples), current=target, target=target)
    return np.fromfile(target, dtype="<f4")


def values(size, seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return (generator.normal(size=size) * scale * 10.0 ** generator.integers(-20, 20, size)).astype(
        np.float32
    )


@settings(deadline=None)  # the first example compiles
@given(count=st.integers(1, 2**29 - 1), seed=st.integers(0, 50))
def test_one_site_gets_its_bytes_back(tmp_path_factory, count, seed):
    mine = values(97, seed)
    assert combined(tmp_path_factory.mktemp("f"), [mine], [count]).tobytes() == mine.tobytes()


@settings(deadline=None)  # the first example compiles
@given(counts=st.lists(st.integers(1, 2**24), min_size=2, max_size=9))
def test_equal_replies_are_the_reply(tmp_path_factory, counts):
    mine = values(53, 3)
    got = combined(tmp_path_factory.mktemp("f"), [mine] * len(counts), counts)
    assert got.tobytes() == mine.tobytes()


def test_the_weighted_mean(tmp_path):
    one, two = np.array([1.0, 2.0], np.float32), np.array([4.0, -2.0], np.float32)
    np.testing.assert_array_equal(combined(tmp_path, [one, two], [1, 3]), [3.25, -1.0])


def test_a_module_larger_than_a_tile_is_walked_whole(tmp_path):
    arrays = [values(1000, seed) for seed in range(3)]
    replies = stored(tmp_path, arrays, [1, 1, 1])
    parts = list(tiles(replies, tile_values=64))
    assert [len(part[0]) for part in parts] == [64] * 15 + [40]
    for place, mine in enumerate(arrays):
        np.testing.assert_array_equal(np.concatenate([part[place] for part in parts]), mine)


def test_an_unknown_strategy_or_option_is_named():
    with pytest.raises(UnknownNameError, match="fedavg"):
        make_strategy("krum", {})
    with pytest.raises(ConfigError, match="momentum"):
        make_strategy("fedavg", {"momentum": 1})
