"""A model of a given size in natural tensors, and the marks that both sides' apps leave for the benchmark.

Runs inside the apps, so it imports nothing of the project. Time is the machine's monotonic clock, which all
its processes share.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np


def tensors(model_bytes: int, count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 tensors of about equal size, two-dimensional as layers are; their bytes add up exactly.

    Args:
        model_bytes: of all together; a multiple of 4.
        count: of tensors.
        seed: of the values. They are random: Flower stores equal bytes once.
    """
    values = model_bytes // 4
    generator = np.random.default_rng(seed)
    found = {}
    for index in range(count):
        size = values // count + (index < values % count)
        rows = next(rows for rows in (64, 16, 4, 1) if size % rows == 0)
        found[f"layer.{index:03d}.weight"] = generator.random((rows, size // rows), dtype=np.float32)
    return found


def mark(path: Path, what: str, **facts: Any) -> None:
    """Append one line to a file of marks; short lines of several processes do not mix."""
    line = json.dumps({"at_s": time.monotonic(), "pid": os.getpid(), "what": what, **facts}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_marks(path: Path) -> list[dict[str, Any]]:
    """The marks of a file, in the order of time."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(lines, key=lambda line: float(line["at_s"]))


def memory(pid: int | str = "self") -> dict[str, int]:
    """Resident bytes of a process: now, its anonymous part, and the peak since ``forget_peak``."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM", "RssAnon"):
            found[name] = int(value.split()[0]) * 1024
    return {"now_bytes": found["VmRSS"], "own_bytes": found["RssAnon"], "peak_bytes": found["VmHWM"]}


def forget_peak(pid: int | str = "self") -> None:
    """Let the peak of a process begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
