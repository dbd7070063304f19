"""Runs benchmarks one after the other, each in a process of its own, and keeps the figures of their lines.

Comes in: what to run, and a folder for what they print. Goes out: an entry a benchmark: rows, machine,
versions, when, how long, or why it failed. A benchmark that fails stops no other; one that is done is not run
again when a broken run is taken up.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import psutil

from cardionets_core.durable import write_json
from cardionets_core.plain_json import parse_json, read_json
from simulation.benchmarks.catalogue import DATA, Benchmark, Figure

VERSIONS = ("cardionets", "flwr", "torch", "numpy", "numba")
LONGEST_FAULT = 200
BUSY = 0.5
"""Busy cores from which on seconds, and ratios of seconds, are no longer those of the programs alone."""
SCHEMA_VERSION = 1


def gather(
    benchmarks: Iterable[Benchmark],
    folder: Path,
    *,
    data: Path | None = None,
    note: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """Run what has not been run yet.

    Args:
        benchmarks: in the order in which they run.
        folder: keeps what each prints, and its entry; a later call takes up what is there.
        data: folder of public data for those that need it; without it they are left out.
        note: of what ran beside them, for the reader.
        tell: called with a line when something begins or ends.

    Returns:
        Entry by name of the benchmark; none for one that was left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for each in benchmarks:
        if each.needs_data and data is None:
            tell(f"{each.name}: left out, it needs --data")
            continue
        known = _kept(folder / f"{each.name}.json", each)
        if known is not None:
            tell(f"{each.name}: taken up from the run before")
            found[each.name] = known
            continue
        busy = busy_cores()
        told = f" (other work keeps {busy:.1f} cores busy: ratios will be off)" if busy > BUSY else ""
        tell(f"{each.name}: {each.command}{told}")
        found[each.name] = run_one(each, folder, data=data, note=note, busy=busy)
        write_json(folder / f"{each.name}.json", found[each.name])
        tell(f"{each.name}: {outcome_line(found[each.name])}")
    return found


def busy_cores() -> float:
    """Cores that are busy now. The load average would still hold the benchmark that ran before."""
    return psutil.cpu_percent(interval=1.0) / 100 * (psutil.cpu_count() or 1)


def run_one(
    benchmark: Benchmark, folder: Path, *, data: Path | None, note: str, busy: float
) -> dict[str, Any]:
    """Run a benchmark whatever comes of it; returns its entry. ``busy`` is of ``busy_cores`` before it."""
    words = [each.replace(DATA, str(data)) for each in benchmark.arguments]
    command = [sys.executable, "-W", "ignore", "-m", f"simulation.benchmarks.{benchmark.module}", *words]
    start = time.monotonic()
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    output, errors = folder / f"{benchmark.name}.jsonl", folder / f"{benchmark.name}.err"
    # Straight into files: what a broken run has printed so far can be read.
    with output.open("wb") as lines, errors.open("wb") as faults:
        code = subprocess.run(command, stdout=lines, stderr=faults, check=False).returncode
    content, broken = read_lines(output.read_text(encoding="utf-8", errors="replace"))
    rows = rows_of(benchmark, content)
    entry: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": benchmark.name,
        "command": benchmark.command,
        "date": day,
        "seconds": round(time.monotonic() - start, 1),
        "machine": machine(),
        "busy_cores_before": round(busy, 1),
        "versions": versions(),
        "note": note,
        "status": "done",
        "fault": "",
        "rows": rows,
    }
    if code != 0:
        entry |= {"status": "failed", "fault": fault_of(errors) or f"it ended with code {code}"}
    elif broken:
        entry |= {"status": "failed", "fault": f"{broken} of its lines are no JSON"}
    elif not rows:
        entry |= {"status": "failed", "fault": "it printed none of the figures that are kept"}
    return entry


def read_lines(text: str) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of some lines, and how many lines are none."""
    found, broken = [], 0
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            content = parse_json(line.encode())
        except ValueError:
            content = None
        if isinstance(content, dict):
            found.append(content)
        else:
            broken += 1
    return found, broken


def rows_of(benchmark: Benchmark, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The figures of a benchmark's lines, each once; of a case that was told twice, the last."""
    found = {row["what"]: row for line in lines for row in _rows_of_line(benchmark, line)}
    return list(found.values())


def _rows_of_line(benchmark: Benchmark, line: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for figure in benchmark.figures:
        value = line.get(figure.key)
        if type(value) not in (int, float) or not _fits(figure, line):
            continue
        yield {
            "what": figure.what.format_map(line),
            "value": value,
            "unit": figure.unit,
            "baseline": figure.baseline,
            "better": figure.better,
            "margin": figure.margin,
        }


def _fits(figure: Figure, line: Mapping[str, Any]) -> bool:
    named = {name for _, name, _, _ in Formatter().parse(figure.what) if name}
    return named <= line.keys() and all(line.get(key) in values for key, values in figure.where.items())


def fault_of(errors: Path) -> str:
    """The last line that a failing program wrote, without the paths of this machine."""
    lines = [
        line for line in errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    last = lines[-1].strip() if lines else ""
    words = [Path(word).name if word.strip("'\"(").startswith("/") else word for word in last.split()]
    return " ".join(words)[:LONGEST_FAULT]


def outcome_line(entry: Mapping[str, Any]) -> str:
    """How a benchmark went, for people."""
    told = f"{len(entry['rows'])} figures in {entry['seconds']:.0f} s"
    return told if entry["status"] == "done" else f"failed after {entry['seconds']:.0f} s: {entry['fault']}"


def machine() -> dict[str, Any]:
    """What the machine is, without its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
    }


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide the figures."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _kept(path: Path, benchmark: Benchmark) -> dict[str, Any] | None:
    """The entry of an earlier try of the same command that was done, or None."""
    try:
        entry = read_json(path)
        fits = (
            entry["schema_version"] == SCHEMA_VERSION
            and entry["command"] == benchmark.command
            and entry["status"] == "done"
            and isinstance(entry["rows"], list)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(entry) if fits else None
