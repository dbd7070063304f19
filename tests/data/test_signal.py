"""Resampling and the compiled filter against scipy, and where the compiled code is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, resample, sosfiltfilt

from cardionets_core.data import kernels
from cardionets_core.data.readers.wfdb_ecg import read_wfdb
from cardionets_core.data.signal import filter_ecg, resample_ecg


def scipys(signal: np.ndarray) -> np.ndarray:
    high = butter(5, 0.67 / 125, btype="highpass", output="sos")
    low = butter(5, 40 / 125, btype="lowpass", output="sos")
    return np.stack([sosfiltfilt(low, sosfiltfilt(high, row)) for row in signal])


@settings(max_examples=25, deadline=None)
@given(leads=st.integers(1, 35), samples=st.integers(19, 400), exponent=st.integers(-6, 6))
def test_the_filter_is_scipys_forward_backward_butterworth(leads: int, samples: int, exponent: int) -> None:
    signal = np.random.default_rng(leads * samples).normal(size=(leads, samples)) * 10.0**exponent
    before = signal.copy()
    expected = scipys(signal)
    np.testing.assert_allclose(filter_ecg(signal), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(signal, before)


def test_the_filter_is_scipys_on_a_real_recording(shared_data: Path) -> None:
    record = read_wfdb(shared_data / "ecg" / "georgia" / "E07500.hea")
    signal = resample(record.signal_mv.astype(np.float64), 2500, axis=1)
    expected = scipys(signal)
    error = np.abs(filter_ecg(resample_ecg(record.signal_mv, 500.0)) - expected).max()
    assert error < 1e-12 * np.abs(expected).max()


def test_leads_do_not_meet_in_the_filter_and_the_layout_in_memory_does_not_count() -> None:
    signal = np.random.default_rng(3).normal(size=(13, 300))
    whole = filter_ecg(signal)
    for lead in range(13):
        np.testing.assert_array_equal(filter_ecg(signal[lead : lead + 1])[0], whole[lead])
    np.testing.assert_array_equal(filter_ecg(np.asfortranarray(signal)), whole)
    np.testing.assert_array_equal(filter_ecg(signal[::-1]), whole[::-1])


def test_many_threads_filter_at_once() -> None:
    signals = [np.random.default_rng(seed).normal(size=(12, 1500)) for seed in range(24)]
    alone = [filter_ecg(signal) for signal in signals]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone, pool.map(filter_ecg, signals), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("samples", "fs_hz"),
    [
        (5003, 500.0),
        (5000, 500.0),
        (1000, 100.0),
        (1001, 100.0),
        (4096, 400.0),
        (1300, 257.3),
        (9999, 1000.0),
    ],
)
def test_resampling_is_scipys_fft_method(samples: int, fs_hz: float) -> None:
    signal = np.random.default_rng(1).normal(size=(3, samples))
    expected = resample(signal, int(samples * 250 / fs_hz), axis=1)
    np.testing.assert_allclose(resample_ecg(signal, fs_hz), expected, rtol=0, atol=1e-13)


def test_250_hz_is_untouched_and_what_cannot_be_is_refused() -> None:
    signal = np.random.default_rng(1).normal(size=(2, 5003))
    np.testing.assert_array_equal(resample_ecg(signal, 250.0), signal)
    with pytest.raises(ValueError, match="100"):
        resample_ecg(signal, 99.0)
    with pytest.raises(ValueError, match="19"):
        filter_ecg(signal[:, :18])


PROGRAM = """
import sys, types
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("kernels_elsewhere", sys.argv[1])
kernels = module_from_spec(spec)
sys.modules[spec.name] = kernels
spec.loader.exec_module(kernels)
import numpy as np
windows = np.empty((1, 1, 4), np.float32)
one = np.zeros(1, np.int64)
kernels.standardise_windows(np.array([0, 2, 0, 2], np.int16), one, one + 4, one, windows)
print(windows.ravel().tolist(), len(kernels.standardise_windows.stats.cache_misses or {}))
"""


@pytest.mark.parametrize("user_folder", [True, False])
def test_compiled_code_is_kept_in_the_users_folder_or_nowhere(tmp_path: Path, user_folder: bool) -> None:
    package = tmp_path / "package"
    package.mkdir()
    copy = package / "kernels_elsewhere.py"
    copy.write_text(Path(kernels.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (
        package / "__pycache__"
    ).touch()  # a file where the folder should be: nobody can write there, not even root
    home = tmp_path / "home"
    home.mkdir() if user_folder else home.touch()
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    for _ in range(2 if user_folder else 1):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(copy)], env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("[-1.0, 1.0, -1.0, 1.0]")
    compiled = list(tmp_path.rglob("*.nbc"))
    assert bool(compiled) == user_folder and all(home in path.parents for path in compiled)
    assert not list(package.rglob("*.nb?"))
    if user_folder:
        assert ran.stdout.split()[-1] == "0"  # the second process found what the first had compiled


def test_numba_is_imported_by_no_command_that_only_helps() -> None:
    program = (
        "import sys, client.cli, server.cli; print([m for m in ('numba', 'llvmlite') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
