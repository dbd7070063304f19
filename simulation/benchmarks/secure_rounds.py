"""What a whole round costs under secure aggregation, beside the same round in the clear.

The real server and the real sites of a study run in one process over an in-process grid, one site after the
other: orders, one training step on one ECG, the gate, the journal, replies on disk, checks, the strategy, the
checkpoint. Only the network and Flower's processes are left out. An ECG encoder of the size asked for is
trained; each case runs in a process of its own on the same hospitals, and is told by its second round, which
measures nothing. The baseline is the plain case of as many sites and bytes in the same run.
``python -m simulation.benchmarks.secure_rounds`` prints one JSON line a case; 50 sites at 50 MB need 20 GB of
disk and half an hour.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

SITES = (3, 10, 50)
SIZES = {1: (64, 5), 50: (256, 16)}
"""Megabytes of the trained modules, to width and depth of the encoder."""
PATIENTS = 16
TOLD_ROUND = 2
ROUNDS = 3
COMPARED = ("round_s", "received_bytes", "sent_bytes", "peak_bytes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every case in a process of its own, or one case in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=SITES)
    parser.add_argument("--megabytes", type=int, nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--folder", type=Path, help="for hospitals and runs; by default a temporary one")
    parser.add_argument("--case", choices=("plain", "masked"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        write(
            one_case(options.folder, options.sites[0], options.megabytes[0], masked=options.case == "masked")
        )
        return
    with tempfile.TemporaryDirectory(prefix="secure-rounds-", dir=options.folder) as name:
        make_sites(Path(name), max(options.sites))
        for megabytes in options.megabytes:
            for sites in options.sites:
                base = run_case(Path(name), sites, megabytes, "plain")
                found = run_case(Path(name), sites, megabytes, "masked")
                ratios = {f"{key}_ratio": round(found[key] / base[key], 2) for key in COMPARED}
                write(base)
                write(found | ratios)


def write(content: dict[str, object]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "secure-rounds", **content}) + "\n")
    sys.stdout.flush()


def run_case(folder: Path, sites: int, megabytes: int, case: str) -> dict[str, Any]:
    """One case in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "simulation.benchmarks.secure_rounds", "--case", case]
    command += ["--sites", str(sites), "--megabytes", str(megabytes), "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def make_sites(folder: Path, count: int) -> None:
    """Hospitals with ECGs and their prepared stores."""
    from cardionets_core.config.site import read_site
    from cardionets_core.data.prepare import prepare
    from simulation.make import make_hospitals
    from simulation.scenario import Scenario

    hospital = {
        "layout": "mimic_iv_ecg",
        "patients": PATIENTS,
        "policy": {"minimum_patients": 5, "minimum_cell": 1},
    }
    content = {
        "name": "secure-rounds",
        "seed": 1,
        "hospitals": [{**hospital, "site": f"site-{number:03d}"} for number in range(count)],
        "study": study_content("nano", minimum=2),
    }
    for path in make_hospitals(Scenario.model_validate(content), folder / "hospitals", workers=2):
        prepare(read_site(path))


def study_content(preset: str, *, minimum: int) -> dict[str, Any]:
    """A study of steps that cost little, for at least so many sites."""
    return {
        "name": "secure-rounds",
        "seed": 1,
        "preset": preset,
        "sites": {"minimum": minimum, "deadline_s": 3600},
        "evaluation": {"every_rounds": ROUNDS},
        "phases": [
            {
                "task": "ecg_mae",
                "rounds": ROUNDS,
                "local_steps": 1,
                "batch_size": 1,
                "optimiser": {"name": "sgd", "lr": 1e-4},
            }
        ],
    }


def one_case(folder: Path, sites: int, megabytes: int, *, masked: bool) -> dict[str, Any]:
    """Run the study on the first sites; what its second round cost."""
    from cardionets_core.config.study import Study
    from cardionets_core.models.presets import PRESETS
    from cardionets_core.models.sizes import TransformerSize
    from server.progress import silent
    from simulation.flower import run_locally
    from simulation.rosters import with_roster

    width, depth = SIZES[megabytes]
    nano = PRESETS["nano"]
    size = TransformerSize(width=width, depth=depth, heads=4)
    PRESETS["bench"] = replace(nano, name="bench", ecg_encoder=size)
    paths = sorted((folder / "hospitals").glob("*/site.yaml"))[:sites]
    for path in paths:
        shutil.rmtree(path.parent / "state", ignore_errors=True)
    content = study_content("bench", minimum=sites)
    if masked:
        threshold = max(2, -(-2 * sites // 3))
        content["secure_aggregation"] = {"threshold": threshold, "largest_samples": 100}
    study = with_roster(Study.model_validate(content), paths)
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    before = _peak()
    result = run_locally(study, paths, folder=run, progress=silent, track=False)
    told = result["rounds"][TOLD_ROUND - 1]
    found = {
        "case": "masked" if masked else "plain",
        "sites": sites,
        "counted": len(told["sites"]),
        "megabytes": megabytes,
        "module_bytes": (run / "model" / "ecg_encoder.safetensors").stat().st_size,
        "round_s": round(told["seconds"], 2),
        "round_s_a_site": round(told["seconds"] / sites, 3),
        "sent_bytes": told["bytes_sent"],
        "received_bytes": told["bytes_received"],
        "peak_bytes": _peak() - before,
    }
    shutil.rmtree(run)
    for path in paths:
        shutil.rmtree(path.parent / "state", ignore_errors=True)
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
