"""A study with its updates in fp32, bf16 and int8: bytes that come back, and what the model is worth.

The same hospitals, study and seed run once a precision, in this process; the baseline is fp32. Bytes are
those of the whole study: received (updates) and sent (orders, which stay fp32). The metric is each phase's
primary one over its test patients. ``python -m simulation.benchmarks.wire_precision`` prints one JSON line a
precision.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PRECISIONS = ("fp32", "bf16", "int8")


def counted(result: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes of a finished run, and the primary metric of each phase by its task.

    Args:
        result: content of ``result.json``.
    """
    metrics = {}
    for entry in result["rounds"]:
        if entry.get("test"):
            metrics[entry["task"]] = entry["test"]["pooled"].get(entry["primary"])
    return {
        "received_bytes": sum(entry["bytes_received"] for entry in result["rounds"]),
        "sent_bytes": sum(entry["bytes_sent"] for entry in result["rounds"]),
        "test": metrics,
        "seconds": round(sum(entry["seconds"] for entry in result["rounds"]), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study at each precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="demo", help="file or shipped name")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args(arguments)

    from server.progress import silent
    from simulation.flower import run_locally
    from simulation.make import make_hospitals
    from simulation.run import index_hospitals
    from simulation.scenario import load_scenario
    from simulation.screen import Screen

    scenario = load_scenario(options.scenario)
    with tempfile.TemporaryDirectory(prefix="precision-") as name:
        paths = make_hospitals(scenario, Path(name) / "hospitals", workers=options.cores)
        index_hospitals(paths, Screen(sys.stderr, live=False, quiet=True), cores=options.cores)
        base: dict[str, Any] = {}
        for precision in PRECISIONS:
            for path in paths:
                shutil.rmtree(path.parent / "state", ignore_errors=True)
            exchange = scenario.study.exchange.model_copy(update={"precision": precision})
            study = scenario.study.model_copy(update={"exchange": exchange})
            folder = Path(name) / precision
            found = counted(run_locally(study, paths, folder=folder, progress=silent, track=False))
            base = base or found
            ratio = round(found["received_bytes"] / base["received_bytes"], 4)
            line = {"precision": precision, **found, "received_ratio_to_fp32": ratio}
            sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "wire-precision", **line}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
