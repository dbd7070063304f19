"""Mutated and truncated real files: every reader refuses with a type or gives a valid record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cardionets_core.data.readers.registry import READERS

FUZZER = Path(__file__).parent / "fuzz_readers.py"


def test_no_reader_crashes_hangs_or_swells(shared_data):
    done = subprocess.run(
        [sys.executable, str(FUZZER), str(shared_data), "--count", "400"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["cases"] == sum(report["answers"].values()) == 400
    assert set(report["readers"]) == set(READERS), "a reader has no file to be fuzzed with"
    # Both answers occur: a fuzzer that breaks everything, or nothing, tests little.
    assert any(answer.endswith(": read") for answer in report["answers"])
    assert any(not answer.endswith(": read") for answer in report["answers"])
