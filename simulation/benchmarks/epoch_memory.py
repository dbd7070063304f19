"""Memory of one training epoch over a prepared cache, in a process that does nothing else.

Comes in: a ``site.yaml`` whose cache is prepared. Goes out: one JSON line. Counted is anonymous memory
(``RssAnon`` of ``/proc/self/status``): what the process cannot give back. The pages of the mapped cache are
the page cache's, shrink when memory is wanted elsewhere, and stand apart (``RssFile``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BATCH = 64
SHAPE_SAMPLES = 2250
_PAUSE_S = 0.005


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an epoch and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="site.yaml, prepared")
    sys.stdout.write(json.dumps(run_epoch(parser.parse_args(arguments).site)) + "\n")


def run_epoch(site: Path) -> dict[str, object]:
    """Open the cache as a training process does, then take every training row once, shuffled, in batches.

    Returns:
        Rows, seconds, and bytes: at the start (libraries loaded, nothing opened), and the peaks.
    """
    import numpy as np

    from cardionets_core.config.site import read_site
    from cardionets_core.data import kernels  # noqa: F401 - a library too: it counts to the start
    from cardionets_core.data.cache import open_cache
    from cardionets_core.data.windows import InputShape

    start = memory_bytes()
    config = read_site(site)
    with sampled_peak() as opening:
        cohort = open_cache(config)
    shape = InputShape(ecg_samples=SHAPE_SAMPLES, cine_frames=50, cine_pixels=96)
    needs = frozenset({"ecg"})
    generator = np.random.default_rng(0)
    with sampled_peak() as epoch:
        began = time.perf_counter()
        rows = generator.permutation(cohort.rows(needs, "train", shape))
        checksum = 0.0
        for place in range(0, len(rows), BATCH):
            batch = cohort.batch(rows[place : place + BATCH], keys=needs, shape=shape, generator=generator)
            assert batch.ecg_BLT is not None
            checksum += float(batch.ecg_BLT[:, 0, 0].sum())
        seconds = time.perf_counter() - began
    if not np.isfinite(checksum):
        raise RuntimeError("a batch is not finite")
    return {
        "records": len(cohort.ecg_samples),
        "rows": len(rows),
        "start_anon_bytes": start["RssAnon"],
        "opening_peak_anon_bytes": opening["RssAnon"],
        "epoch_peak_anon_bytes": epoch["RssAnon"],
        "epoch_peak_file_bytes": epoch["RssFile"],
        "epoch_s": round(seconds, 3),
    }


def memory_bytes() -> dict[str, int]:
    """``RssAnon`` and ``RssFile`` of this process; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(found[name].split()[0]) for name in ("RssAnon", "RssFile")}


@contextlib.contextmanager
def sampled_peak() -> Iterator[dict[str, int]]:
    """The greatest value of each kind of memory while the block runs; filled in when it ends."""
    peak = memory_bytes()
    done = threading.Event()

    def look() -> None:
        for name, value in memory_bytes().items():
            peak[name] = max(peak[name], value)

    def watch() -> None:
        while not done.wait(_PAUSE_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
        look()
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main()
