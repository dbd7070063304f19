"""Over orders and replies: one site is local training, a step of many the pooled step (SCIENCE 8.6, 8.7)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import concatenate
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training import export_tensors, train_locally
from cardionets_core.training.memory import InProcess
from cardionets_core.training.seeds import derive_seed
from client.app import make_app
from server.app import run_study
from server.checkpoints import CheckpointStore
from simulation.central import train_centrally
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

SGD = {"name": "sgd", "lr": 0.5, "weight_decay": 0.0, "schedule": "constant"}
PERSIST = {"name": "adamw", "lr": 1e-3, "warmup": 2, "state": "persist"}


def make_study(*phases: dict, minimum: int) -> Study:
    sites = {"minimum": minimum, "deadline_s": 60}
    return Study.model_validate({"name": "plain", "seed": 5, "sites": sites, "phases": list(phases)})


def run(study: Study, paths, folder) -> dict[str, dict[str, np.ndarray]]:
    """Tensors of every module at the end of a federated run."""
    paths = tuple(paths)
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, paths)) for _ in paths])
    run_study(grid, study, folder=folder, track=False)
    last = CheckpointStore(folder / "checkpoints", study_digest=study.digest).latest()
    return {name: last.tensors(name) for name in last.digests}


@pytest.mark.parametrize(
    ("rounds", "optimiser"),
    [(1, {**SGD, "lr": 1e-2}), (1, {**SGD, "lr": 1e-2, "momentum": 0.9}), (3, PERSIST)],
    ids=["sgd", "momentum", "persist"],
)
def test_one_site_is_local_training_bit_for_bit(consortium, tmp_path, rounds, optimiser):
    """Beside a loop that knows no order, no reply, no strategy and no store."""
    task = {"task": "ecg_mae", "rounds": rounds, "local_steps": 3, "batch_size": 8, "optimiser": optimiser}
    study = make_study(task, minimum=1)
    found = run(study, [consortium.paths["alpha"]], tmp_path)

    ecg_mae, phase, memory = make_task("ecg_mae", {}), study.phases[0], InProcess()
    modules = {
        name: build_module(name, "nano", seed=derive_seed(5, "initial", name)) for name in ecg_mae.trains
    }
    before = export_tensors(modules["ecg_encoder"])["embed.1.weight"].copy()
    site = SiteView(cohort=consortium.cohorts["alpha"], shape=shape_of("nano"), device=torch.device("cpu"))
    for number in range(1, rounds + 1):
        seed = derive_seed(5, "train", 0, number, "alpha")
        train_locally(ecg_mae, modules, site, phase=phase, round_index=number, seed=seed, memory=memory)
    for name, module in modules.items():
        for key, value in export_tensors(module).items():
            assert value.tobytes() == found[name][key].tobytes(), f"{name}.{key}"
    assert not np.array_equal(found["ecg_encoder"]["embed.1.weight"], before)


@pytest.mark.parametrize(
    ("solved", "trained", "module"),
    [("standardise", "phenotype", "phenotype_head"), ("prevalence", "screening", "screening_head")],
)
def test_a_full_batch_step_of_all_sites_is_the_pooled_step(consortium, tmp_path, solved, trained, module):
    """Mean features need no draw of a window, so a row is the same at its site and in the pool."""
    phase = {"task": trained, "rounds": 1, "local_steps": 1, "batch_size": 4096, "optimiser": SGD,
             "options": {"windows": "mean", "bootstrap_replicates": 5}}  # fmt: skip
    study = make_study({"task": solved, "rounds": 1}, phase, minimum=2)
    found = run(study, consortium.paths.values(), tmp_path)[module]
    pooled = concatenate(list(consortium.cohorts.values()), site="all")
    expected = train_centrally(study, pooled).phase_ends[-1][module]
    alone = train_centrally(study, consortium.cohorts["alpha"]).phase_ends[-1][module]
    start = export_tensors(build_module(module, "nano", seed=derive_seed(5, "initial", module)))
    difference, move, apart = (
        max(float(np.abs(one[key] - other[key]).max()) for key in start)
        for one, other in ((found, expected), (expected, start), (alone, expected))
    )
    assert difference < 1e-6
    assert move > 1e-3 and apart > 1e-3, "the step must be one, and a site's own another"
