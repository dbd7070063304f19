"""Stored replies and rounds of one strategy, in a folder."""

from __future__ import annotations

import numpy as np
import pytest

from server.memory import young_heap
from strategies import RoundFacts, StoredModule, make_strategy


@pytest.fixture(autouse=True, scope="module")
def small_heap():
    """As a server runs: Flower's strategies collect garbage at every reply, in all that a process holds."""
    with young_heap():
        yield


class Bench:
    """Runs strategies on arrays.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder):
        self.folder = folder
        self.count = 0

    def file(self, values):
        self.count += 1
        path = self.folder / f"{self.count}.f32"
        np.asarray(values, dtype="<f4").tofile(path)
        return path

    def replies(self, arrays, samples=None, *, values=None, extras=None):
        found = []
        for place, array in enumerate(arrays):
            found.append(
                StoredModule(
                    site=f"s{place:03d}",
                    samples=1 if samples is None else int(samples[place]),
                    path=self.file(array),
                    size=len(array),
                    values={} if values is None else values[place],
                    extras={} if extras is None else {n: self.file(v[place]) for n, v in extras.items()},
                )
            )
        return found

    def rounds(self, name, options, replies, *, current, rounds=1, population=0):
        """The module after some rounds of the same replies, and what is remembered."""
        strategy, path, before = make_strategy(name, options), self.file(current), {}
        for number in range(1, rounds + 1):
            self.count += 1
            target = self.folder / f"{self.count}-next.f32"
            after = {state: self.folder / f"{self.count}-{state}.f32" for state in strategy.state_names}
            strategy.combine(
                replies,
                current=path,
                target=target,
                before=before,
                after=after,
                facts=RoundFacts(number=number, population=population),
            )
            path, before = target, after
        return np.fromfile(path, dtype="<f4"), {n: np.fromfile(p, dtype="<f4") for n, p in before.items()}

    def once(self, name, options, arrays, samples=None, *, current=None, **more):
        current = np.zeros(len(arrays[0])) if current is None else current
        return self.rounds(name, options, self.replies(arrays, samples, **more), current=current)[0]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def make_bench(tmp_path_factory):
    """For property tests: a folder an example."""
    return lambda: Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def draw():
    """float32 arrays from a seed."""
    return lambda sites, size, seed=0: np.random.default_rng(seed).normal(size=(sites, size)).astype("f4")
