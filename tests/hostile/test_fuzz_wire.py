"""A few wounded artefacts of every surface: refused with a type or valid, in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parent / "fuzz_wire.py"
COUNT = 40


def test_no_surface_crashes_hangs_or_swells():
    # In one process, since every start costs seconds; ``make fuzz`` gives each surface its own. A whole site
    # is made there alone: its orders and its cache have tests of their own.
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--together", "--count", str(COUNT), "--without", "sites",
         "--without", "caches"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)["surfaces"]
    assert len(report) == 26
    for name, found in report.items():
        assert sum(found["answers"].values()) == found["tried"] == COUNT, name
    answers = [answer for found in report.values() for answer in found["answers"]]
    # Both answers occur: a fuzzer that breaks everything, or nothing, tests little.
    assert any(answer.startswith("refused") for answer in answers) and "same" in answers
