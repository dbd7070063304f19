"""Both generations of the method on the same invented patients, seeds and steps, as a table.

The hospitals and phases are those of the shipped scenario and study ``cardionets``, without the hospital that
never trains and without the phases that measure something else; each hospital with a scanner has both views
of the heart. The earlier generation has learning rates of its own. A third run gives it as many seconds of
each phase as the later one took, where equal steps cost it more. The Frechet distance is measured in the
features of one tower for all, that of the later generation of the same seed: each in its own would be no
comparison.
``python -m simulation.benchmarks.generations --out DIR`` runs all. Or run a seed a core
(``OMP_NUM_THREADS=1``, ``--seeds 7``, ``--format json``); ``--join FILE FILE`` makes the table of what they
printed. Values are means over seeds, with the least and the greatest; seconds are of this machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
LATER, EARLIER = "cardionets", "cardiacnets"
EQUAL_SECONDS = f"{EARLIER}, equal seconds"
SEEDS = (7, 8)
DRAWN_AT_ONCE, TIMES = 16, 3
FIGURES: Mapping[str, tuple[str, str]] = {
    "phenotype R2": ("phenotype", "r2_mean"),
    "screening AUROC": ("screening", "auroc_mean"),
    "alignment recall@5": ("align", "recall@5"),
    "drawn cine SSIM": ("generate", "ssim"),
    "SSIM of another's ECG": ("generate", "ssim_shuffled"),
    "SSIM of the mean cine": ("generate", "ssim_mean_cine"),
    "drawn cine PSNR, dB": ("generate", "psnr"),
    "phenotype r, read from drawn cines": ("generate", "phenotype_r_drawn"),
    "phenotype r, read from real cines": ("generate", "phenotype_r_real"),
}
"""Row of the table to the task whose test patients it is of, and its metric."""
FRECHET = "Frechet distance, in the later tower's features"
LEFT_OUT = ("probe", "calibrate", "memorisation", "fuse")
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "cmr_mae": {"lr": 1e-3},
    "ecg_mae": {"lr": 1e-3, "mask_share": 0.8},
    "align": {"lr": 1e-3, "betas": [0.9, 0.95], "temperature": 0.1},
    "generate": {"lr": 2e-3},
}
"""What the phases of the earlier generation have of their own: rates, published mask and temperature."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for the runs")
    parser.add_argument("--join", type=Path, nargs="+", help="make the table of files of --format json")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--quick", action="store_true", help="a step of each phase: whether all of it runs")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    asked = parser.parse_args(arguments)
    if (asked.out is None) == (asked.join is None):
        parser.error("give --out to run, or --join to read what was run")
    content = _joined(asked.join) if asked.join else _run(asked)
    runs = content["runs"]
    sys.stdout.write(
        json.dumps(content) + "\n" if asked.format == "json" else "\n".join(lines_of(runs)) + "\n"
    )


def _run(asked: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {LATER: [], EARLIER: [], EQUAL_SECONDS: []}
    for seed in asked.seeds:
        for name in runs:
            phases = shipped_phases(LATER if name == LATER else EARLIER)
            if asked.quick:
                phases = [quick(phase) for phase in phases]
            if name == EQUAL_SECONDS:
                phases = in_as_many_seconds(phases, runs[LATER][-1], runs[EARLIER][-1])
            done = one_run(asked, name, phases, seed=seed)
            runs[name].append(done)
            done["values"][FRECHET] = common_frechet(done, runs[LATER][-1])
            told = {key: value for key, value in done.items() if key != "end"}
            sys.stderr.write(f"{name}, seed {seed}: {json.dumps(told)}\n")
    for done in (run for each in runs.values() for run in each):
        del done["end"]
    return {"schema_version": SCHEMA_VERSION, "preset": asked.preset, "seeds": asked.seeds, "runs": runs}


def _joined(paths: Sequence[Path]) -> dict[str, Any]:
    """What several runs printed, as if one had made all."""
    first, *others = (json.loads(path.read_text()) for path in paths)
    for other in others:
        first["seeds"] += other["seeds"]
        for name, made in other["runs"].items():
            first["runs"][name] += made
    return first


def shipped_phases(generation: str) -> list[dict[str, Any]]:
    """The phases of the study ``cardionets``, as one of the generations has them."""
    from simulation.scenario import named_study

    phases = [dict(phase) for phase in named_study("cardionets")["phases"] if phase["task"] not in LEFT_OUT]
    if generation == EARLIER:
        for phase in phases:
            for key, value in CHANGES.get(phase["task"], {}).items():
                place = "optimiser" if key in ("lr", "betas") else "options"
                phase[place] = {**phase.get(place, {}), key: value}
    return phases


def quick(phase: Mapping[str, Any]) -> dict[str, Any]:
    """A phase of one round and, where it makes any, one step."""
    short = {**phase, "rounds": 1}
    return {**short, "local_steps": 1} if "local_steps" in phase else short


def in_as_many_seconds(
    phases: Sequence[Mapping[str, Any]], later: Mapping[str, Any], earlier: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The phases with fewer rounds where a round of the earlier generation took longer; never with more."""
    cut = []
    for phase in phases:
        mine, theirs = (run["seconds_a_round"][phase["task"]] for run in (earlier, later))
        share = min(1.0, theirs / mine) if "optimiser" in phase else 1.0
        cut.append({**phase, "rounds": max(1, round(share * phase["rounds"]))})
    return cut


def one_run(
    asked: argparse.Namespace, name: str, phases: Sequence[Mapping[str, Any]], *, seed: int
) -> dict[str, Any]:
    """Run a study of one generation; what its test patients say, and what it cost."""
    from simulation.run import RunRequest, run_scenario
    from simulation.scenario import Scenario
    from simulation.screen import Screen

    generation = LATER if name == LATER else EARLIER
    out = asked.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    scenario = Scenario.model_validate(scenario_content(asked, generation, phases, seed=seed))
    # Made once a seed: the hospitals follow from it, and a run keeps those that it finds as they should be.
    made = asked.out / f"{LATER}-{seed}" / "hospitals"
    if name != LATER and made.is_dir() and not (out / "hospitals").exists():
        shutil.copytree(made, out / "hospitals", ignore=shutil.ignore_patterns("state", "cache"))
    request = RunRequest(scenario=scenario, out=out, engine="local", compare=False, track=False, replace=True)
    result = run_scenario(request, Screen(sys.stderr, live=False, quiet=True))
    if result["status"] != "completed":
        raise RuntimeError(f"the study in {out} is {result['status']}: {result.get('reason')}")
    return {
        "folder": out.name,
        "values": dict(_values(result)),
        **_costs(result),
        "seconds_a_sample": seconds_a_sample(scenario, out),
        "end": (scenario, out),
    }


def scenario_content(
    asked: argparse.Namespace, generation: str, phases: Sequence[Mapping[str, Any]], *, seed: int
) -> dict[str, Any]:
    """The scenario: its hospitals follow from the seed alone."""
    from simulation.hospitals import DrawnHospital
    from simulation.scenario import load_scenario

    hospitals = []
    for hospital in load_scenario("cardionets").hospitals:
        if isinstance(hospital, DrawnHospital) and not hospital.external:
            content = hospital.model_dump(mode="json", exclude_unset=True)
            hospitals.append({**content, "views": ["4ch", "sax"]} if hospital.drawn_views else content)
    return {
        "name": "generations",
        "seed": seed,
        "hospitals": hospitals,
        "study": {
            "name": "generations",
            "seed": seed,
            "preset": asked.preset,
            "generation": generation,
            "sites": {"minimum": 2, "deadline_s": 3600},
            "evaluation": {"every_rounds": 100},
            "phases": list(phases),
        },
    }


def seconds_a_sample(scenario: Any, out: Path) -> float:
    """Median time to draw one cine, of a batch, with the study's own model on this machine."""
    import torch

    from cardionets_core.models import get_preset
    from cardionets_core.tasks.drawing import draw_cines, drawing_settings
    from cardionets_core.tasks.generators import generator_kind
    from simulation.phase_end import phase_end

    preset = get_preset(scenario.study.models)
    end = phase_end(scenario.study, "generate", folder=out)
    assert end is not None  # the study has such a phase
    shape = (
        (1 + preset.ecg_patches, preset.ecg_encoder.width)
        if generator_kind(preset.parts).takes_tokens
        else (preset.projection,)
    )
    condition = torch.randn(DRAWN_AT_ONCE, *shape, generator=torch.Generator().manual_seed(0))
    settings, times = drawing_settings(preset), []
    for _ in range(TIMES):
        begin = time.monotonic()
        seeds = list(range(DRAWN_AT_ONCE))
        draw_cines(end.modules, condition, settings=settings, seeds=seeds, device=torch.device("cpu"))
        times.append((time.monotonic() - begin) / DRAWN_AT_ONCE)
    return statistics.median(times)


def common_frechet(run: Mapping[str, Any], tower_of: Mapping[str, Any]) -> float:
    """Distance of drawn and real cines of held-out patients, in the features of another run's tower."""
    import numpy as np
    import torch

    from cardionets_core.config.site import read_site
    from cardionets_core.data.cache import open_cache
    from cardionets_core.evaluation.frechet import feature_moments, frechet_distance
    from simulation.generated import draw_cases
    from simulation.phase_end import phase_end

    scenario, out = run["end"]
    end = phase_end(scenario.study, "generate", folder=out)
    other, folder = tower_of["end"]
    tower = phase_end(other.study, "generate", folder=folder)
    assert end is not None and tower is not None  # both studies have such a phase
    features: dict[str, list[np.ndarray]] = {"real": [], "drawn": []}
    for path in sorted((out / "hospitals").glob("*/site.yaml")):
        cases = draw_cases(end, open_cache(read_site(path)), study=scenario.study, most=64)
        if cases is not None:
            with torch.no_grad():
                for kind, cine_BFYX in (("real", cases.real_RFYX), ("drawn", cases.made["drawn"])):
                    features[kind].append(tower.modules["cmr_encoder"](cine_BFYX).double().numpy())
    real, drawn = (feature_moments(np.concatenate(features[kind])) for kind in ("real", "drawn"))
    return float(frechet_distance(real, drawn))


def lines_of(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """The table as Markdown: a row a figure, a column a run."""
    names = list(runs)
    yield "| | " + " | ".join(names) + " |"
    yield "|---|" + "---:|" * len(names)
    for row in (*FIGURES, FRECHET):
        yield (
            f"| {row} | "
            + " | ".join(_cell([run["values"].get(row) for run in runs[n]]) for n in names)
            + " |"
        )
    for row, key in (
        ("seconds a round, mean over all rounds", "seconds"),
        ("MB a round and site", "megabytes"),
    ):
        yield f"| {row} | " + " | ".join(_cell([run[key] for run in runs[name]]) for name in names) + " |"
    cells = [_cell([1000.0 * run["seconds_a_sample"] for run in runs[name]]) for name in names]
    yield "| ms a drawn cine | " + " | ".join(cells) + " |"
    cells = [_cell([run["whole_seconds"] for run in runs[name]]) for name in names]
    yield "| seconds, all rounds | " + " | ".join(cells) + " |"


def _values(result: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for row, (task, metric) in FIGURES.items():
        tests = [e["test"]["pooled"] for e in result["rounds"] if e["task"] == task and e.get("test")]
        yield row, (tests[-1].get(metric) if tests else None)


def _costs(result: Mapping[str, Any]) -> dict[str, Any]:
    rounds = result["rounds"]
    by_task: dict[str, list[float]] = {}
    for entry in rounds:
        by_task.setdefault(entry["task"], []).append(float(entry["seconds"]))
    moved = sum((e["bytes_sent"] + e["bytes_received"]) / max(1, len(e["sites"])) for e in rounds)
    whole = sum(sum(each) for each in by_task.values())
    return {
        "seconds": whole / len(rounds),
        "whole_seconds": whole,
        "megabytes": moved / len(rounds) / 1e6,
        "rounds": {task: len(each) for task, each in by_task.items()},
        "seconds_a_round": {task: statistics.mean(each) for task, each in by_task.items()},
    }


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3g}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.3g} to {max(known):.3g})"


if __name__ == "__main__":
    main()
