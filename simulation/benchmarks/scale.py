"""How a round grows with the number of sites: seconds, whose they are, memory, bytes.

The real server and the real client code run a study of the smallest model in one process, one site after the
other, without network and without Ray: what is left of a round is what both programs do themselves. Each
number of sites runs in a process of its own, and is told by its second round. ``--engine flower`` runs the
same on Flower's simulation engine, with a process a core.
``python -m simulation.benchmarks.scale --sites 10 30 100 300 1000 --out runs/scale.png`` prints one JSON line
a case and a last one with what each site adds; ``--profile`` also tells the functions that the largest case
spends its time in.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SITES = (10, 30, 100, 300, 1000)
PROFILED = 25


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every case in a process of its own, or one case in this one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, nargs="+", default=list(SITES))
    parser.add_argument("--engine", choices=("local", "flower"), default="local")
    parser.add_argument("--cores", type=int, default=2, help="of Flower's engine")
    parser.add_argument("--out", type=Path, help="a picture of the cases, .png")
    parser.add_argument("--folder", type=Path, help="keep the sites here; by default a temporary folder")
    parser.add_argument("--profile", action="store_true", help="of the largest case, on stderr")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.out is not None and options.out.suffix != ".png":
        parser.error("--out names a .png file")
    if min(options.sites) < 2:
        parser.error("--sites are numbers from 2 on")
    if options.case:
        _write(one_case(options.folder, options.case, options))
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases = []
        for sites in sorted(set(options.sites)):
            profiled = options.profile and sites == max(options.sites)
            cases.append(_in_own_process(folder, sites, options, profiled=profiled))
            _write(cases[-1])
    if len(cases) > 1:
        _write({"engine": options.engine, **growth_of(cases)})
    if options.out is not None:
        from simulation.benchmarks.scale_plot import plot_cases

        options.out.parent.mkdir(parents=True, exist_ok=True)
        plot_cases(cases, options.out)


def one_case(folder: Path, sites: int, options: argparse.Namespace) -> dict[str, Any]:
    """One number of sites, in this process."""
    import cProfile
    import pstats

    from simulation.benchmarks.many_sites import make_sites
    from simulation.benchmarks.scale_case import run_case, study_content

    paths = make_sites(folder, sites, study=study_content(sites))
    profile = cProfile.Profile() if options.profile else None
    if profile:
        profile.enable()
    found = run_case(paths, folder / "run", engine=options.engine, cores=options.cores)
    if profile:
        profile.disable()
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(PROFILED)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("cumtime").print_stats(3 * PROFILED)
    return found


def growth_of(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What each further site adds, and how steeply a round grows: 1 is in proportion, 2 as the square.

    Both are told from the two largest cases, where what a round costs by itself weighs least.
    """
    import math

    small, large = sorted(cases, key=lambda case: case["sites"])[-2:]
    more = large["sites"] - small["sites"]
    found: dict[str, Any] = {"measure": "growth", "from_sites": small["sites"], "to_sites": large["sites"]}
    kinds = ("s", "processor_s")
    for name in (f"{whose}_{kind}" for whose in ("round", "sites", "server") for kind in kinds):
        if name in small and small[name] > 0 and large[name] > 0:
            found[f"{name}_a_site"] = round((large[name] - small[name]) / more, 5)
            steps = math.log(large["sites"] / small["sites"])
            found[f"{name}_exponent"] = round(math.log(large[name] / small[name]) / steps, 2)
    found["peak_bytes_a_site"] = round((large["peak_bytes"] - small["peak_bytes"]) / more)
    if "server_processor_s" in large:
        found["server_share"] = round(large["server_processor_s"] / large["round_processor_s"], 3)
    return found


def _in_own_process(
    folder: Path, sites: int, options: argparse.Namespace, *, profiled: bool
) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "simulation.benchmarks.scale", "--case", str(sites)]
    command += ["--folder", str(folder), "--engine", options.engine, "--cores", str(options.cores)]
    command += ["--profile"] if profiled else []
    # Many small tensors: threads of one process would only wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name: value for name, value in found.items() if name not in ("schema_version", "benchmark")}


def _write(content: Mapping[str, object]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "scale", **content}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
