"""Server momentum: its closed form over rounds, its limits, and that tiles change nothing."""

import numpy as np
import pytest

from cardionets_core.errors import ConfigError
from strategies import FedAvg, FedAvgM, StoredModule
from strategies.fedavgm import VELOCITY


def rounds(folder, changes, options, *, size=5, samples=(3,)):
    """Each round the sites return what they were sent plus a change; the module after each round."""
    current, before, found = folder / "w0.f32", {}, []
    np.zeros(size, dtype="<f4").tofile(current)
    for number, change in enumerate(changes, start=1):
        sent = np.fromfile(current, dtype="<f4")
        replies = []
        for site, count in enumerate(samples):
            path = folder / f"{number}-{site}.f32"
            (sent + np.float32(change)).tofile(path)
            replies.append(StoredModule(site=f"s{site}", samples=count, path=path, size=size))
        target, after = folder / f"w{number}.f32", {VELOCITY: folder / f"v{number}.f32"}
        FedAvgM(options).combine(replies, current=current, target=target, before=before, after=after)
        current, before = target, after
        found.append(np.fromfile(current, dtype="<f4"))
    return found


@pytest.mark.parametrize("nesterov", [True, False])
def test_it_follows_its_closed_form(tmp_path, nesterov):
    changes, momentum, rate = [1.0, 0.5, -2.0, 0.25], 0.8, 0.5
    found = rounds(
        tmp_path, changes, {"momentum": momentum, "rate": rate, "nesterov": nesterov}, samples=(1, 4)
    )
    weight = velocity = 0.0
    for change, values in zip(changes, found, strict=True):
        velocity = momentum * velocity + change
        weight += rate * (change + momentum * velocity if nesterov else velocity)
        np.testing.assert_allclose(values, weight, rtol=1e-6)


def test_without_momentum_it_is_fedavg(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 1000)).astype("<f4")
    replies = []
    for site, mine in enumerate(values):
        mine.tofile(tmp_path / f"{site}.f32")
        replies.append(
            StoredModule(site=str(site), samples=2 + site, path=tmp_path / f"{site}.f32", size=1000)
        )
    np.ones(1000, dtype="<f4").tofile(tmp_path / "w.f32")
    for strategy, name in ((FedAvg({}), "a"), (FedAvgM({"momentum": 0.0}), "b")):
        strategy.combine(
            replies, current=tmp_path / "w.f32", target=tmp_path / name, after={VELOCITY: tmp_path / "v.f32"}
        )
    plain, limit = (np.fromfile(tmp_path / name, dtype="<f4") for name in "ab")
    np.testing.assert_allclose(limit, plain, atol=1e-7)


def test_modules_larger_than_a_tile_are_walked_whole(tmp_path, monkeypatch):
    whole = rounds(tmp_path / "", [1.0, 2.0], {}, size=100)
    monkeypatch.setattr("strategies.strategy.tiles.__kwdefaults__", {"tile_values": 7})
    (tmp_path / "tiled").mkdir()
    tiled = rounds(tmp_path / "tiled", [1.0, 2.0], {}, size=100)
    assert all(np.array_equal(a, b) for a, b in zip(whole, tiled, strict=True))


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"rate": 0}, {"nesterov": 1}, {"momentum": "much"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match="of the strategy fedavgm is"):
        FedAvgM(options)
