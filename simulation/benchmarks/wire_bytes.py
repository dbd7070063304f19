"""Bytes that a study sends and receives, beside an exchange that knows nothing of modules.

The baseline sends the whole model, that is every module of the study, to every site in every round to train,
gets it back from each, and sends the mean to every site again to be measured, as Flower's FedAvg does; after
a phase's last round once more, for the test patients. Tensors are counted, and our sums of metrics and of
closed-form phases; of the baseline's metrics nothing is.
``python -m simulation.benchmarks.wire_bytes --result runs/demo/result.json`` counts a finished run; without
it, the plan of the study is counted, where a site holds each frozen module from its first phase on. Prints
one JSON line a phase and one for the whole.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Bytes of one phase, both ways, over all sites.

    Attributes:
        phase: its index.
        task: its task.
        ours: what was exchanged.
        naive: what the baseline exchanges with every site of the study.
        naive_same: what the baseline exchanges with those sites only that took part.
    """

    phase: int
    task: str
    ours: int
    naive: int
    naive_same: int


def naive_bytes(model_bytes: int, *, trained: int, measured: int) -> int:
    """Of the baseline: a model out and back for each site that trains, and one out for each that measures."""
    return model_bytes * (2 * trained + measured)


def of_result(result: Mapping[str, Any], model_bytes: int) -> list[Counted]:
    """Count a finished run.

    Args:
        result: content of ``result.json``.
        model_bytes: of all modules of the study, as float32.
    """
    everybody, found = len(result["sites"]), []
    for index, phase in enumerate(result["study"]["phases"]):
        entries = [entry for entry in result["rounds"] if entry["phase"] == index]
        ours = naive = same = 0
        for entry in entries:
            ours += entry["bytes_sent"] + entry["bytes_received"]
            took_part = len(entry["sites"])
            trains = any(row["status"] == "trained" for row in entry["sites"])
            tested = entry.get("test")
            for sites, is_all in ((everybody, True), (took_part, False)):
                test = 0
                if tested is not None:
                    test = everybody if is_all else len(tested["sites"]) + len(tested["external"])
                count = naive_bytes(
                    model_bytes, trained=sites * trains, measured=(sites if trains else 0) + test
                )
                naive, same = (naive + count, same) if is_all else (naive, same + count)
        found.append(Counted(phase=index, task=phase["task"], ours=ours, naive=naive, naive_same=same))
    return found


def of_plan(plan: Mapping[str, Any], sizes: Mapping[str, int], *, sites: int) -> list[Counted]:
    """Count what a study is going to exchange when every site serves every phase.

    Args:
        plan: of the study, as ``plan_of`` gives it.
        sizes: module to bytes as float32.
        sites: how many.
    """
    model_bytes, held = sum(sizes.values()), set()
    found = []
    for index, phase in enumerate(plan["phases"]):
        # Of the frozen modules only those that no earlier phase left at the sites.
        ours = phase["bytes_per_site"] - phase["frozen_bytes_once_per_site"]
        ours += sum(sizes[name] for name in phase["reads"] if name not in held)
        held |= {*phase["reads"], *phase["trains"]}
        rounds = phase["rounds"] if phase["trains"] else 0
        naive = naive_bytes(model_bytes, trained=rounds, measured=rounds + 1)
        found.append(
            Counted(
                phase=index, task=phase["task"], ours=sites * ours, naive=sites * naive,
                naive_same=sites * naive,
            )
        )  # fmt: skip
    return found


def lines(counted: Sequence[Counted]) -> list[dict[str, Any]]:
    """One line a phase, then their sum; ``ratio`` is to the baseline with every site."""
    total = Counted(
        phase=-1,
        task="all",
        ours=sum(each.ours for each in counted),
        naive=sum(each.naive for each in counted),
        naive_same=sum(each.naive_same for each in counted),
    )
    return [
        {
            "phase": each.task if each is total else each.phase + 1,
            "task": each.task,
            "megabytes": round(each.ours / 1e6, 3),
            "naive_megabytes": round(each.naive / 1e6, 3),
            "ratio": round(each.ours / each.naive, 4) if each.naive else None,
            "ratio_same_sites": round(each.ours / each.naive_same, 4) if each.naive_same else None,
        }
        for each in (*counted, total)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Count a run, or a plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, help="result.json of a finished run")
    parser.add_argument("--study", default="demo", help="file or shipped name, where no result is given")
    parser.add_argument("--sites", type=int, default=4, help="where no result is given")
    options = parser.parse_args(arguments)

    from cardionets_core.config.study import Study, read_study
    from server.plan import plan_of
    from server.study_files import find_study

    if options.result is not None:
        result = json.loads(options.result.read_text(encoding="utf-8"))
        study = Study.model_validate(result["study"])
    else:
        study = read_study(find_study(options.study))
    plan = plan_of(study)
    sizes = module_bytes(plan, study.models)
    if options.result is not None:
        counted, source = of_result(result, sum(sizes.values())), "result"
    else:
        counted, source = of_plan(plan, sizes, sites=options.sites), "plan"
    for line in lines(counted):
        content = {"schema_version": 1, "benchmark": "wire-bytes", "study": study.name, "source": source}
        sys.stdout.write(json.dumps(content | line) + "\n")


def module_bytes(plan: Mapping[str, Any], preset: str) -> dict[str, int]:
    """Every module of a plan with its bytes as float32."""
    from cardionets_core.models import build_module

    names = {name for phase in plan["phases"] for name in (*phase["trains"], *phase["reads"])}
    return {
        name: FLOAT_BYTES
        * sum(
            parameter.numel() for parameter in build_module(name, preset, seed=0, device="meta").parameters()
        )
        for name in sorted(names)
    }


if __name__ == "__main__":
    main()
