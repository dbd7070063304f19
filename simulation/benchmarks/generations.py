"""Both generations of the method on the same invented patients, seeds and steps, as a table.

Two hospitals hold both views of the heart and phenotypes, a third has ECGs and diagnoses alone. The very
study of the one generation runs with one key changed. A third run gives the earlier generation as many
seconds of each phase as the later one took, where equal steps cost it more. The Frechet distance is measured
in the features of one tower for all, that of the later generation of the same seed: each in its own would be
no comparison.
``python -m simulation.benchmarks.generations --out DIR`` prints a table; ``--format json`` one object. Values
are means over seeds, with the least and the greatest; seconds are of this machine.
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
_STEPS = {"state": "persist", "warmup": 20}
PHASES: tuple[dict[str, Any], ...] = (
    {
        "task": "cmr_mae", "rounds": 5, "local_steps": 32, "batch_size": 16,
        "optimiser": {"lr": 2e-3, **_STEPS},
    },
    {
        "task": "ecg_mae", "rounds": 16, "local_steps": 25, "batch_size": 8,
        "optimiser": {"lr": 2e-3, **_STEPS}, "options": {"mask_share": 0.5},
    },
    {
        "task": "align", "rounds": 12, "local_steps": 8, "batch_size": 32,
        "optimiser": {"lr": 3e-3, **_STEPS}, "options": {"temperature": 0.35},
    },
    {"task": "standardise", "rounds": 1},
    {
        "task": "phenotype", "rounds": 6, "local_steps": 60, "batch_size": 32,
        "optimiser": {"lr": 2e-3, "weight_decay": 0.01, **_STEPS}, "options": {"windows": "mean"},
    },
    {"task": "prevalence", "rounds": 1},
    {"task": "logistic", "rounds": 10},
    {
        "task": "screening", "rounds": 2, "local_steps": 10, "batch_size": 32,
        "optimiser": {"lr": 1e-3, "weight_decay": 0.01, **_STEPS}, "options": {"windows": "mean"},
    },
    {
        "task": "tokenizer", "rounds": 6, "local_steps": 24, "batch_size": 2,
        "optimiser": {"name": "adam", "lr": 2e-3, "betas": [0.5, 0.9], "weight_decay": 0.0, **_STEPS},
    },
    {
        "task": "generate", "rounds": 8, "local_steps": 40, "batch_size": 32, "ema_decay": 0.99,
        "optimiser": {"lr": 2e-3, "weight_decay": 0.02, "clip_norm": 3.0, **_STEPS},
        "options": {"measured_patients": 32, "guidance": 1.0},
    },
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--patients", type=int, default=200, help="of each hospital")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--quick", action="store_true", help="a step of each phase: whether all of it runs")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    asked = parser.parse_args(arguments)
    runs: dict[str, list[dict[str, Any]]] = {LATER: [], EARLIER: [], EQUAL_SECONDS: []}
    for seed in asked.seeds:
        phases = [quick(phase) for phase in PHASES] if asked.quick else [dict(phase) for phase in PHASES]
        for name in runs:
            if name == EQUAL_SECONDS:
                phases = in_as_many_seconds(phases, runs[LATER][-1], runs[EARLIER][-1])
            done = one_run(asked, name, phases, seed=seed)
            tower = (runs[LATER] or [done])[-1] if name != LATER else done
            done["values"][FRECHET] = common_frechet(done, tower)
            runs[name].append(done)
    for done in (run for each in runs.values() for run in each):
        del done["end"]
    content = {
        "schema_version": SCHEMA_VERSION,
        "preset": asked.preset,
        "patients": asked.patients,
        "seeds": asked.seeds,
        "runs": runs,
    }
    sys.stdout.write(
        json.dumps(content) + "\n" if asked.format == "json" else "\n".join(lines_of(runs)) + "\n"
    )


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
    """The scenario: its hospitals follow from the seed and the number of patients alone."""
    common = {
        "patients": asked.patients,
        "split": {"validation": 0.15, "test": 0.25},
        "policy": {"minimum_patients": 5, "minimum_cell": 1},
    }
    scanner = {"spacing_mm": 1.83, "pixels": 96, "frames": 25}
    both = {**common, "views": ["4ch", "sax"], "scanner": scanner}
    return {
        "name": "generations",
        "seed": seed,
        "hospitals": [
            {"site": "biobank", "layout": "uk_biobank", **both},
            {"site": "riverside", "layout": "local_csv", **both},
            {"site": "intensive", "layout": "mimic_iv_ecg", **common},
        ],
        "study": {
            "name": "generations",
            "seed": seed,
            "preset": asked.preset,
            "generation": generation,
            "sites": {"minimum": 1, "deadline_s": 3600},
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
        (preset.ecg_patches, preset.ecg_encoder.width)
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
