"""From a hospital's disk to a batch: seconds and memory, on a generated MIMIC-IV-ECG tree.

The baseline is what a study's own script would do for each record: ``wfdb.rdrecord``, resampling and the
zero-phase filter by scipy, a standardised window. Against it stand, in the same process on one core,
``prepare`` for each record and batches from the cache; then the equality of the results; then the memory of
a training epoch at two sizes of cohort, each in a process of its own.

``python -m simulation.benchmarks.data_path`` prints JSON lines. Files are in the page cache for both sides,
since they have just been written. Times are of the wall clock; where others use the machine too, the seconds
of the processor (``cpu``) tell more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BASELINE = "wfdb.rdrecord, scipy.signal.resample, sosfiltfilt twice, one standardised window"
_ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the trees, then run each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=2000, help="records of the tree that is timed")
    parser.add_argument("--times", type=int, default=10, help="the large tree is as many times larger")
    parser.add_argument("--measured", type=int, default=200, help="records that are timed one by one")
    parser.add_argument("--speed", type=Path, help="time the tree of this site.yaml here, and nothing else")
    parser.add_argument("--prepare", type=Path, help="prepare this site.yaml here, and nothing else")
    options = parser.parse_args(arguments)
    if options.speed:
        _stay_on_one_core()
        for line in measure_speed(options.speed, measured=options.measured):
            write(line)
    elif options.prepare:
        _prepare(options.prepare)
    else:
        run_all(records=options.records, times=options.times, measured=options.measured)


def run_all(*, records: int, times: int, measured: int) -> None:
    """Every part, in order."""
    from simulation.benchmarks.mimic_tree import make_tree

    with tempfile.TemporaryDirectory(prefix="cardionets-bench-") as scratch:
        small = make_tree(Path(scratch) / "small", subjects=records)
        _child(__spec__.name, "--speed", str(small), "--measured", str(measured), environment=_ONE_CORE)
        peaks = []
        large = make_tree(Path(scratch) / "large", subjects=records, studies=times, seed=1)
        _child(__spec__.name, "--prepare", str(large))
        for site in (small, large):
            text = _child("simulation.benchmarks.epoch_memory", str(site), show=False, environment=_ONE_CORE)
            found = json.loads(text)
            peaks.append(found["epoch_peak_anon_bytes"])
            ratio = {"ratio_to_smaller": round(peaks[-1] / peaks[0], 3)}
            write({"measure": "epoch-memory", **found, **ratio})


def write(content: dict[str, Any]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "data-path", **content}) + "\n")
    sys.stdout.flush()


def measure_speed(site: Path, *, measured: int) -> list[dict[str, Any]]:
    """Baseline, prepare, batches and equality, on the cores of this process.

    Args:
        site: ``site.yaml`` of a tree that was never prepared.
        measured: records that are timed one by one, the baseline and ours in turn.
    """
    from cardionets_core.config.site import read_site
    from cardionets_core.data.cohort import Cohort
    from cardionets_core.data.pack import pack_recording
    from cardionets_core.data.prepare import prepare
    from cardionets_core.data.sources import open_source
    from cardionets_core.data.windows import InputShape

    load = os.getloadavg()[0]
    config = read_site(site)
    source = open_source(config)
    recordings = source.recordings()
    chosen = [recordings[place] for place in np.linspace(0, len(recordings) - 1, measured).astype(int)]
    shape = InputShape(ecg_samples=2250, cine_frames=50, cine_pixels=96)
    rng = np.random.default_rng(0)
    by_scipy = _baseline(rng, length=shape.ecg_samples)
    by_scipy(chosen[0].path), pack_recording(source, chosen[0])  # imports, and compiles where nothing is kept
    spent = time.process_time()
    before = [_seconds(by_scipy, recording.path) for recording in chosen]
    baseline_cpu = (time.process_time() - spent) / measured
    spent = time.process_time()
    wall = _seconds(prepare, config)
    prepare_cpu = (time.process_time() - spent) / len(recordings)
    cohort: Cohort = prepare(config)
    pairs = [
        (_seconds(by_scipy, recording.path), _seconds(pack_recording, source, recording))
        for recording in chosen
    ]
    rows = cohort.rows(frozenset({"ecg"}), "train", shape)

    def batch() -> None:
        drawn = rng.choice(rows, 64, replace=len(rows) < 64)
        cohort.batch(drawn, keys=frozenset({"ecg"}), shape=shape, generator=rng)

    batch()
    batches = []
    for recording in chosen:
        batches.append(_seconds(batch))
        before.append(_seconds(by_scipy, recording.path))
    baseline = statistics.median(before + [pair[0] for pair in pairs])
    packing = statistics.median(pair[1] for pair in pairs)
    return [
        {"measure": "machine", "cpus": os.cpu_count(), "on_cpus": len(os.sched_getaffinity(0)),
         "load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)},
        {"measure": "baseline", "what": BASELINE, "ms_per_record": _ms(baseline),
         "cpu_ms_per_record": _ms(baseline_cpu), "records": 3 * measured},
        _against(baseline, packing, measure="pack-recording", records=measured),
        _against(baseline, wall / len(recordings), measure="prepare", records=len(recordings), workers=1,
                 wall_s=round(wall, 2), kept=len(cohort.ecg_samples), cpu_ms_per_record=_ms(prepare_cpu),
                 times_less_cpu_than_baseline=round(baseline_cpu / prepare_cpu, 2)),
        _against(baseline, statistics.median(batches) / 64, measure="batches", batch=64, batches=measured),
        {"measure": "equality", **compare(source, chosen)},
    ]  # fmt: skip


def compare(source: Any, recordings: Sequence[Any]) -> dict[str, Any]:
    """Our decoding against wfdb's, and our filter against scipy's, on the same records."""
    from scipy.signal import sosfiltfilt

    from cardionets_core.data.leads import order_leads
    from cardionets_core.data.quality import mend_missing
    from cardionets_core.data.signal import filter_ecg, resample_ecg

    high, low = _filters()
    decoded = filtered = 0.0
    agree = True
    for recording in recordings:
        record = source.read(recording)
        signal, names = _read_with_wfdb(recording.path)
        theirs = signal[:, [names.index(lead) for lead in record.leads]].T.astype(np.float32)
        agree &= bool((np.isnan(theirs) == np.isnan(record.signal_mv)).all())
        decoded = max(decoded, float(np.nanmax(np.abs(theirs - record.signal_mv))))
        clean = resample_ecg(mend_missing(order_leads(record)[0]).signal_mv, record.fs_hz)
        expected = sosfiltfilt(low, sosfiltfilt(high, clean, axis=1), axis=1)
        error = np.abs(filter_ecg(clean) - expected).max() / np.abs(expected).max()
        filtered = max(filtered, float(error))
    return {"records": len(recordings), "decoded_largest_difference_mv": decoded,
            "missing_samples_agree": agree, "filter_largest_relative_error": filtered}  # fmt: skip


def _baseline(rng: np.random.Generator, *, length: int) -> Callable[[Path], np.ndarray]:
    from scipy.signal import resample, sosfiltfilt

    from cardionets_core.data.records import LEADS

    high, low = _filters()

    def read(path: Path) -> np.ndarray:
        signal, names = _read_with_wfdb(path)
        ordered = np.nan_to_num(signal[:, [names.index(lead) for lead in LEADS]].T)
        slower = resample(ordered, len(signal) // 2, axis=1)
        filtered = sosfiltfilt(low, sosfiltfilt(high, slower, axis=1), axis=1)
        start = int(rng.integers(0, filtered.shape[1] - length + 1))
        window = filtered[:, start : start + length]
        return ((window - window.mean()) / window.std()).astype(np.float32)

    return read


def _read_with_wfdb(path: Path) -> tuple[np.ndarray, list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it warns under pandas 3
        import wfdb
    record = wfdb.rdrecord(str(path.with_suffix("")))
    return record.p_signal, record.sig_name


def _filters() -> tuple[np.ndarray, np.ndarray]:
    from scipy.signal import butter

    high = butter(5, 0.67, btype="highpass", fs=250.0, output="sos")
    return high, butter(5, 40.0, btype="lowpass", fs=250.0, output="sos")


def _against(baseline: float, seconds: float, **content: Any) -> dict[str, Any]:
    """A line of ours: ms a record, records a second, and how many times faster than the baseline."""
    return content | {"ms_per_record": _ms(seconds), "records_per_s": round(1 / seconds),
                      "times_faster_than_baseline": round(baseline / seconds, 2)}  # fmt: skip


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 4)


def _stay_on_one_core() -> None:
    import torch

    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _prepare(site: Path) -> None:
    from cardionets_core.config.site import read_site
    from cardionets_core.data.prepare import prepare

    prepare(read_site(site))


def _child(module: str, *words: str, show: bool = True, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", module, *words]
    ran = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    )
    if show:
        sys.stdout.write(ran.stdout)
        sys.stdout.flush()
    return ran.stdout


if __name__ == "__main__":
    main()
