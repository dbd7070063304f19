"""Speed of combining stored replies, beside the machine's memory in the same run.

10 replies of 100 MB lie in the page cache and are averaged by the real strategy. Yardsticks of the same
minute: copying large arrays and adding one up, both with as many threads as there are cores, and the same
mean in numpy tile by tile, which is the baseline. All take turns; the best of them counts, since a shared
machine only ever makes things slower. Gigabytes a second are bytes of all replies over time; for the copy,
bytes copied. ``python -m simulation.benchmarks.aggregation`` prints one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from strategies import StoredModule, make_strategy, weighted_sum
from strategies.strategy import tiles

REPLIES = 10
VALUES = 25_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=VALUES, help="float32 values of the model")
    parser.add_argument("--replies", type=int, default=REPLIES)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="aggregation-") as folder:
        found = measure(Path(folder), values=options.values, replies=options.replies, turns=options.turns)
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "aggregation", **found}) + "\n")


def measure(folder: Path, *, values: int, replies: int, turns: int) -> dict[str, object]:
    """Best times of everything, in turns."""
    stored = [
        StoredModule(site=f"site-{index:02d}", samples=100 + index, path=folder / f"{index}.f32", size=values)
        for index in range(replies)
    ]
    for index, reply in enumerate(stored):
        np.random.default_rng(index).random(values, dtype=np.float32).tofile(reply.path)
    threads = len(os.sched_getaffinity(0))
    source = np.ones(2 * values, dtype=np.float32)
    goal, strategy, mean = np.zeros_like(source), make_strategy("fedavg", {}), folder / "mean.f32"
    synced = [0.0]

    def combine() -> None:
        strategy.combine(stored, current=mean, target=mean)

    def plain() -> None:
        with (folder / "plain.f32").open("wb") as handle:
            for tile in numpy_means(stored):
                handle.write(tile.astype("<f4").tobytes())

    with ThreadPoolExecutor(threads) as pool:

        def over_all(work: Callable[[slice], object]) -> None:
            edges = np.linspace(0, source.size, threads + 1).astype(int)
            list(pool.map(work, [slice(a, b) for a, b in itertools.pairwise(edges)]))

        works: dict[str, tuple[int, Callable[[], None]]] = {
            "copy": (source.nbytes, lambda: over_all(lambda part: np.copyto(goal[part], source[part]))),
            "sum": (source.nbytes, lambda: over_all(lambda part: source[part].sum())),
            "numpy": (4 * values * replies, plain),
            "combine": (4 * values * replies, combine),
        }
        fsync = os.fsync

        def timed(fd: Any) -> None:
            start = time.perf_counter()
            fsync(fd)
            synced[0] += time.perf_counter() - start

        best = dict.fromkeys([*works, "combine_on_disk"], 0.0)
        weighted_sum.os.fsync = timed
        try:
            combine()  # compiles
            for _ in range(turns):
                for name, (nbytes, work) in works.items():
                    synced[0], start = 0.0, time.perf_counter()
                    work()
                    spent = time.perf_counter() - start
                    best[name] = max(best[name], nbytes / (spent - synced[0]))
                    if name == "combine":
                        best["combine_on_disk"] = max(best["combine_on_disk"], nbytes / spent)
        finally:
            weighted_sum.os.fsync = fsync
    same = mean.read_bytes() == (folder / "plain.f32").read_bytes()
    return {
        "replies": replies,
        "model_bytes": 4 * values,
        "threads": threads,
        "gigabytes_per_s": {name: round(speed / 1e9, 2) for name, speed in best.items()},
        "ratio_to_copy": round(best["combine"] / best["copy"], 3),
        "ratio_to_sum": round(best["combine"] / best["sum"], 3),
        "ratio_to_numpy": round(best["combine"] / best["numpy"], 2),
        "same_bits": same,
    }


def numpy_means(stored: Sequence[StoredModule]):  # type: ignore[no-untyped-def]
    """The mean as its definition says, in numpy, tile by tile."""
    total = float(sum(reply.samples for reply in stored))
    for arrays in tiles(stored):
        sums = np.zeros(arrays[0].size, dtype=np.float64)
        for reply, values in zip(stored, arrays, strict=True):
            sums += np.float64(reply.samples) * values
        yield sums / total


if __name__ == "__main__":
    main()
