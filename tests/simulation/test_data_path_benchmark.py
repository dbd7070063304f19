"""The benchmark of the data path runs on a small tree, and what it claims to be equal is equal."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.config.site import read_site
from cardionets_core.data.sources import open_source
from simulation.benchmarks.data_path import measure_speed
from simulation.benchmarks.epoch_memory import memory_bytes, run_epoch, sampled_peak
from simulation.benchmarks.mimic_tree import make_tree


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"), subjects=5, studies=3)


def test_the_tree_is_read_whole_and_its_copies_cost_no_disk(site: Path) -> None:
    source = open_source(read_site(site))
    recordings = source.recordings()
    assert len(recordings) == 15 and len({recording.patient for recording in recordings}) == 5
    assert {recording.path.with_suffix(".dat").stat().st_nlink for recording in recordings} == {3}
    first = source.read(recordings[0])
    assert np.isnan(first.signal_mv).sum() == 200 and first.signal_mv.shape == (12, 5000)


def test_speed_and_equality_and_an_epoch(site: Path) -> None:
    lines = {line["measure"]: line for line in measure_speed(site, measured=3)}
    assert set(lines) == {"machine", "baseline", "pack-recording", "prepare", "batches", "equality"}
    assert lines["prepare"]["records"] == lines["prepare"]["kept"] == 15
    equality = lines["equality"]
    assert equality["decoded_largest_difference_mv"] == 0.0 and equality["missing_samples_agree"]
    assert equality["filter_largest_relative_error"] < 1e-5
    epoch = run_epoch(site)
    assert epoch["records"] == 15 and 0 < int(str(epoch["rows"])) <= 15


def test_the_peak_is_that_of_the_block_and_counts_what_is_ours() -> None:
    before = memory_bytes()["RssAnon"]
    # Private pages of its own: an array may come from memory that the process already had.
    pages = mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with sampled_peak() as peak:
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1
    pages.close()
    assert peak["RssAnon"] > before + 30_000_000
