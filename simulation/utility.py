"""What differential privacy costs: the held-out AUROC of screening over epsilon, by size of the hospitals.

Comes in: a folder, seeds, epsilons. Goes out: ``utility.json`` and ``utility.png``. Studies run by the real
rounds on the in-process grid. Sites measure nothing under ``dp_sgd``, so the final model is measured here, on
the held-out patients of all made hospitals, as a researcher can who made them and a coordinator cannot.

Curves: the head alone at the hospitals of the scenario ``demo`` and at large ones, from an encoder that was
made on other people; and encoder and head from nothing at ``demo``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.prepare import prepare
from cardionets_core.durable import write_json
from server.checkpoints import CheckpointStore, export_model
from simulation.arms import phase_ends
from simulation.flower import run_locally
from simulation.make import make_hospitals
from simulation.scenario import Scenario, load_scenario
from simulation.scoring import MEMBERS, measured_phases, score_of, site_sums
from simulation.utility_studies import (
    DELTA,
    ENCODER,
    LARGE_HEAD,
    PRIOR,
    SMALL_HEAD,
    WHOLE,
    Recipe,
    pretraining_study,
    private_study,
)

EPSILONS = (None, 8.0, 3.0, 1.0)
LARGE_PATIENTS = 1500
PUBLIC_PATIENTS = 1000
TASK = "screening"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospitals:
    """Made hospitals, indexed."""

    paths: Sequence[Path]
    cohorts: Sequence[Cohort]

    @property
    def training_patients(self) -> list[int]:
        """Of each hospital."""
        return [len(np.unique(each.row_patient[each.row_split == 0])) for each in self.cohorts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One curve: its name, where and how it trains, and how many of the seeds it gets at most."""

    name: str
    hospitals: Hospitals
    recipe: Recipe
    most_seeds: int = 100


def run_utility(
    out: Path,
    *,
    seeds: Sequence[int],
    epsilons: Sequence[float | None] = EPSILONS,
    large: bool = True,
    whole: bool = True,
    cores: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Train and measure every curve, and write numbers and picture.

    Args:
        out: folder; made if absent, with the hospitals in it.
        seeds: of model, batches and noise; ``whole`` takes the first alone.
        epsilons: None is without privacy.
        large: whether to make large hospitals too.
        whole: whether to train encoder and head from nothing too, which takes most of the time.
        cores: processes that make hospitals.
        progress: told of each training.
    """
    demo = load_scenario("demo")
    folder, given = made_beginning(out, cores=cores)
    progress("the encoder of other people is made")
    small = made_hospitals(demo, out / "hospitals", cores=cores)
    curves = [Curve(name="head, small hospitals", hospitals=small, recipe=SMALL_HEAD)]
    if large:
        big = made_hospitals(ecg_hospitals("large", LARGE_PATIENTS), out / "large", cores=cores)
        curves.append(Curve(name="head, large hospitals", hospitals=big, recipe=LARGE_HEAD))
    if whole:
        name = "encoder and head, small hospitals"
        curves.append(Curve(name=name, hospitals=small, recipe=WHOLE, most_seeds=1))
    rows = []
    for curve in curves:
        for epsilon in epsilons:
            rows.append(point(curve, epsilon, seeds=seeds, given=given, initial=folder, work=out / "work"))
            told = rows[-1]
            progress(f"{curve.name} · epsilon {epsilon or 'none'} · AUROC {told['mean']:.3f}")
    content: dict[str, Any] = {
        "schema_version": 1,
        "experiment": "utility",
        "metric": "auroc_mean",
        "delta": DELTA,
        "seeds": list(seeds),
        "points": rows,
    }
    from simulation.pictures.utility import picture_utility

    content["picture"] = picture_utility(content, out / "utility.png")
    write_json(out / "utility.json", content)
    return content


def point(
    curve: Curve,
    epsilon: float | None,
    *,
    seeds: Sequence[int],
    given: Mapping[str, str],
    initial: Path,
    work: Path,
) -> dict[str, Any]:
    """One point of a curve: a whole study a seed, each measured once."""
    started, scores, patients = time.monotonic(), [], 0
    for seed in seeds[: curve.most_seeds]:
        study = private_study(curve.recipe, epsilon=epsilon, seed=seed, given=given)
        store = trained(study, curve.hospitals, folder=work, initial=initial)
        value, patients = measured(study, store, curve.hospitals.cohorts)
        scores.append(value)
    return {
        "curve": curve.name,
        "epsilon": epsilon,
        "mean": float(np.mean(scores)),
        "lowest": min(scores),
        "highest": max(scores),
        "by_seed": scores,
        "training_patients": curve.hospitals.training_patients,
        "test_patients": patients,
        "clip_norm": curve.recipe.clip_norm,
        "batch_size": curve.recipe.batch_size,
        "seconds": round(time.monotonic() - started, 1),
    }


def trained(study: Study, hospitals: Hospitals, *, folder: Path, initial: Path | None) -> CheckpointStore:
    """Run a study from nothing. What the sites had spent and answered before is forgotten: they are made."""
    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    for path in hospitals.paths:
        shutil.rmtree(read_site(path).folders.state, ignore_errors=True)
    run_locally(
        study, hospitals.paths, folder=folder, progress=lambda event: None, track=False, initial=initial
    )
    return CheckpointStore(folder / "checkpoints", study_digest=study.digest)


def measured(study: Study, store: CheckpointStore, cohorts: Sequence[Cohort]) -> tuple[float, int]:
    """The final model's metric on the held-out patients of all hospitals, and how many they are."""
    ((index, task),) = [found for found in measured_phases(study) if found[1].name == TASK]
    model = phase_ends(store, study)[TASK]
    sums = site_sums(model, task, cohorts, base=study, index=index)
    score = score_of("federated", task, sums, population=MEMBERS)
    assert score is not None  # the made hospitals have test patients
    return score.mean, score.patients


def made_beginning(
    out: Path, *, cores: int, patients: int = PUBLIC_PATIENTS, rounds: int = 8
) -> tuple[Path, dict[str, str]]:
    """An encoder and prevalences of other people: their folder, and their digests."""
    public = made_hospitals(ecg_hospitals("public", patients, seed=99, count=1), out / "public", cores=cores)
    study = pretraining_study(rounds=rounds)
    end = trained(study, public, folder=out / "pretraining", initial=None).phase_end(1, 1)
    export_model(end, out / "beginning", study=study)
    return out / "beginning", {name: end.digests[name] for name in (ENCODER, PRIOR)}


def ecg_hospitals(name: str, patients: int, *, seed: int = 7, count: int = 4) -> Scenario:
    """Hospitals with ECGs and diagnoses alone."""
    hospitals = [
        {
            "site": f"{name}-{number}",
            "layout": "mimic_iv_ecg",
            "patients": patients,
            "repeat_share": 0.0,
            "split": {"validation": 0.05, "test": 0.15},
            "prevalence": {"cad": 0.25, "cm": 0.15, "hf": 0.22, "pc": 0.05, "ph": 0.15},
        }
        for number in range(1, count + 1)
    ]
    return Scenario.model_validate({"name": name, "seed": seed, "hospitals": hospitals, "study": "demo"})


def made_hospitals(scenario: Scenario, folder: Path, *, cores: int) -> Hospitals:
    """Make and index the hospitals of a scenario."""
    paths = make_hospitals(scenario, folder, workers=cores)
    return Hospitals(paths=paths, cohorts=[prepare(read_site(path)) for path in paths])
