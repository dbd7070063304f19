"""Fed-Heart-Disease of FLamby, run through this house's rounds and strategies, beside the published numbers.

A benchmark that nobody here wrote: UCI's heart-disease tables of four centers, a logistic regression, 15
rounds of 100 steps. Each strategy runs the real server and the real client code in one process, from the
protocol's own initial weights and over its own batches. Pooled data, a cycle over the centers and each center
alone, trained by the same local steps, are the references.
``python -m simulation.benchmarks.fed_heart_disease --data DIR`` prints a table; ``--format json`` one object,
also with the first and the last weights of each run. Accuracies are shares of held-out rows; FLamby
measures "pooled" on rows that were standardised by all centers together, and "mean" as the mean of the four
centers, each by its own scale.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.errors import CardioNetsError

SEEDS = (42, 43, 44, 45, 46)
ROUNDS, STEPS = 15, 100
VERSIONS = ("cardionets", "torch", "scikit-learn")
_MOMENTS = {"beta_1": 0.9, "tau": 1e-8}
FEDERATED: Mapping[str, tuple[float, Mapping[str, Any]]] = {
    "fedavg": (1e-3, {}),
    "fedprox": (1e-3, {"mu": 0.01}),
    "scaffold": (1e-3, {}),
    "fedadam": (1e-2, {**_MOMENTS, "rate": 1e-2, "beta_2": 0.999, "bias_correction": False}),
    "fedyogi": (10**-2.5, {**_MOMENTS, "rate": 1e-2, "beta_2": 0.999}),
    "fedadagrad": (10**-2.5, {**_MOMENTS, "rate": 10**-0.5}),
}
"""Strategy to the sites' rate and the server's options."""
PUBLISHED: Mapping[str, tuple[float, float | None]] = {
    "fedavg": (0.748, 0.685),
    "fedprox": (0.748, 0.685),
    "scaffold": (0.748, 0.684),
    "fedadam": (0.779, 0.726),
    "fedyogi": (0.779, 0.731),
    "fedadagrad": (0.779, 0.731),
    "pooled": (0.795, 0.735),
    "cyclic": (0.785, 0.718),
    "local cleveland": (0.784, None),
    "local hungarian": (0.727, None),
    "local switzerland": (0.483, None),
    "local va": (0.611, None),
}
"""FLamby's accuracies, means over its five seeds: on the pooled test rows, and the mean of the centers."""
TOLD_DIFFERENCE = 0.01


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the processed.CENTER.data files")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--strategies", nargs="*", default=[*FEDERATED, *REFERENCES], choices=[*FEDERATED, *REFERENCES],
        help="which of them; all by default", metavar="NAME",
    )  # fmt: skip
    parser.add_argument("--format", choices=("table", "json", "lines"), default="table")
    options = parser.parse_args(arguments)
    try:
        content = run_benchmark(options.data, seeds=options.seeds, names=options.strategies, tell=_tell)
    except CardioNetsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from error
    if options.format == "json":
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
    elif options.format == "lines":
        for row in content["results"]:
            line = {"schema_version": 1, "benchmark": content["benchmark"], **row}
            sys.stdout.write(json.dumps(line) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in table_lines(content))


def run_benchmark(
    data: Path,
    *,
    seeds: Sequence[int],
    names: Sequence[str],
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Every run, and its means beside the published ones.

    Args:
        data: folder of the tables.
        seeds: one run each.
        names: of strategies and references.
        tell: called with a line for each run.

    Returns:
        JSON-ready: ``results`` (a row a strategy, means over seeds), ``runs`` (a row a strategy and seed,
        with initial and final weights as 13 coefficients and the bias).
    """
    from simulation.benchmarks.heart_table import read_centers

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    centers = read_centers(data)
    runs: list[dict[str, Any]] = []
    wanted = [(name, seed) for name in names for seed in seeds]
    for number, (name, seed) in enumerate(wanted, start=1):
        tell(f"{number} of {len(wanted)}: {name}, seed {seed}")
        make = REFERENCES[name] if name in REFERENCES else _federated(name)
        runs += make(centers, seed)
    return {
        "schema_version": 1,
        "benchmark": "fed-heart-disease",
        "seeds": list(seeds),
        "rounds": ROUNDS,
        "steps": STEPS,
        "rows": {c.name: [int((~c.is_test_R).sum()), int(c.is_test_R.sum())] for c in centers},
        "versions": {
            name: importlib.metadata.version(name) for name in ("cardionets", "torch", "scikit-learn")
        },
        "results": results_of(runs),
        "runs": runs,
    }


def results_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds, by strategy, beside FLamby's."""
    found = []
    for name in dict.fromkeys(run["strategy"] for run in runs):
        mine = [run for run in runs if run["strategy"] == name]
        pooled: float = float(np.mean([run["accuracy_pooled"] for run in mine]))
        mean = float(np.mean([run["accuracy_mean"] for run in mine]))
        published = PUBLISHED[name]
        gaps: list[float] = [a - b for a, b in zip((pooled, mean), published, strict=True) if b is not None]
        largest = max(gaps, key=abs)
        ratios = {"ratio_to_published_pooled": round(pooled / published[0], 4)}
        if published[1] is not None:
            ratios["ratio_to_published_mean"] = round(mean / published[1], 4)
        found.append(
            {
                "strategy": name,
                "runs": len(mine),
                "accuracy_pooled": round(pooled, 4),
                "accuracy_mean": round(mean, 4),
                "published_pooled": published[0],
                "published_mean": published[1],
                "largest_difference": round(largest, 4),
                **ratios,
                # Both scales on the same rows: what standardising by all centers does to the accuracy.
                "accuracy_pooled_own_scale": round(
                    float(np.mean([run["accuracy_pooled_own_scale"] for run in mine])), 4
                ),
            }
        )
    return found


def table_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """The results for people."""
    seeds = ", ".join(map(str, content["seeds"]))
    yield f"Fed-Heart-Disease · {content['rounds']} rounds of {content['steps']} steps · seeds {seeds}"
    yield "accuracy of            pooled test rows        mean of four centers"
    yield "                       ours    FLamby          ours    FLamby      differs by"
    for row in content["results"]:
        mean = "  -  " if row["published_mean"] is None else f"{row['published_mean']:.3f}"
        mark = "  *" if abs(row["largest_difference"]) > TOLD_DIFFERENCE else ""
        yield (
            f"{row['strategy']:20}   {row['accuracy_pooled']:.3f}   {row['published_pooled']:.3f}"
            f"           {row['accuracy_mean']:.3f}   {mean}       {row['largest_difference']:+.4f}{mark}"
        )
    if any(abs(row["largest_difference"]) > TOLD_DIFFERENCE for row in content["results"]):
        yield f"* more than {TOLD_DIFFERENCE} from the published number; see docs/benchmarks.md"


def _federated(name: str) -> Callable[[Any, int], list[dict[str, Any]]]:
    def run(centers: Any, seed: int) -> list[dict[str, Any]]:
        from simulation.benchmarks.heart_runs import federated_run

        rate, options = FEDERATED[name]
        return [
            federated_run(
                centers, strategy=name, rate=rate, options=options, seed=seed, rounds=ROUNDS, steps=STEPS
            )
        ]

    return run


def _reference(name: str) -> Callable[[Any, int], list[dict[str, Any]]]:
    def run(centers: Any, seed: int) -> list[dict[str, Any]]:
        from simulation.benchmarks import heart_runs

        if name == "pooled":
            return [heart_runs.pooled_run(centers, seed=seed)]
        if name == "cyclic":
            return [heart_runs.cyclic_run(centers, seed=seed, rounds=ROUNDS, steps=STEPS)]
        return [heart_runs.local_run(centers, place, seed=seed) for place in range(len(centers))]

    return run


REFERENCES = {name: _reference(name) for name in ("pooled", "cyclic", "local")}


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
