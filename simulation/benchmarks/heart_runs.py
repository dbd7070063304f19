"""One run of Fed-Heart-Disease: a federation through the real server and client, or a reference without one.

Comes in: the centers, a strategy and a seed. Goes out: accuracies, and the weights that it began and ended
with. Reads no files but those that the run itself writes into a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from cardionets_core.config.study import Phase, Study
from cardionets_core.data.pseudonym import ensure_key
from cardionets_core.errors import PeerError
from cardionets_core.exchange.tensors import layout_of, module_digest, pack
from cardionets_core.tasks import SiteView
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.local import train_locally
from cardionets_core.training.tensors import export_tensors
from server.progress import silent
from simulation.benchmarks.heart_table import Center
from simulation.benchmarks.heart_task import (
    BATCH,
    MODULE,
    TASK,
    HeartDisease,
    Table,
    batch_rounds,
    hits,
    initial_weights,
    make_table,
    plugged_in,
    table_of,
)
from simulation.flower import run_locally
from simulation.writers.site_document import write_site

REFERENCE_EPOCHS = 50
REFERENCE_OPTIMISER = {"name": "adam", "lr": 1e-3, "betas": (0.9, 0.999)}
CYCLE_RATE = 1e-3


def federated_run(
    centers: Sequence[Center],
    *,
    strategy: str,
    rate: float,
    options: Mapping[str, Any],
    seed: int,
    rounds: int,
    steps: int,
) -> dict[str, Any]:
    """A study of one phase over the four centers.

    Args:
        centers: the sites.
        strategy: name in ``STRATEGIES``.
        rate: of the sites' SGD.
        options: of the strategy.
        seed: of the initial weights and of the batches.
        rounds: of the study.
        steps: of each site in a round.
    """
    start = initial_weights(seed)
    trains = [np.flatnonzero(~center.is_test_R) for center in centers]
    orders = batch_rounds(trains, rounds=rounds, steps=steps, seed=seed)
    with tempfile.TemporaryDirectory(prefix="heart-") as name:
        folder = Path(name)
        digest = _write_initial(start, folder / "initial")
        paths = [_write_site(folder / "sites" / center.name, center) for center in centers]
        tables = {
            path: table_of(center, order) for path, center, order in zip(paths, centers, orders, strict=True)
        }
        study = study_of(strategy, rate, options, seed=seed, rounds=rounds, steps=steps, initial=digest)
        with plugged_in(tables):
            result = run_locally(
                study, paths, folder=folder / "run", progress=silent, track=False, initial=folder / "initial"
            )
        final = load_file(folder / "run" / "model" / f"{MODULE}.safetensors")
    test = result["rounds"][-1]["test"]
    by_site = {row["site"]: row["metrics"]["accuracy"] for row in test["sites"]}
    trained = [row["samples"][MODULE] for entry in result["rounds"] for row in entry["sites"]]
    if trained != [len(rows) for rows in trains] * rounds:
        raise PeerError(
            f"the sites' weights are {trained[: len(trains)]}, not the numbers of their training rows",
            where="rounds",
        )
    return {
        "strategy": strategy,
        "seed": seed,
        "accuracy_pooled": test["pooled"]["accuracy_pooled_scale"],
        "accuracy_mean": float(np.mean(list(by_site.values()))),
        "accuracy_pooled_own_scale": test["pooled"]["accuracy"],
        "accuracy_by_site": by_site,
        "initial": _flat(export_tensors(start)),
        "final": _flat(final),
    }


def study_of(
    strategy: str,
    rate: float,
    options: Mapping[str, Any],
    *,
    seed: int,
    rounds: int,
    steps: int,
    initial: str,
) -> Study:
    """The protocol as a study: all sites in every round, plain SGD at a constant rate."""
    phase = {
        "task": TASK,
        "rounds": rounds,
        "local_steps": steps,
        "batch_size": BATCH,
        "optimiser": {"name": "sgd", "lr": rate, "schedule": "constant", "weight_decay": 0.0},
    }
    return Study.model_validate(
        {
            "name": "fed-heart-disease",
            "seed": seed,
            "sites": {"minimum": 4, "attempts": 1},
            "phases": [phase],
            "aggregation": {"strategy": strategy, "options": dict(options)},
            "evaluation": {"every_rounds": rounds},
            "initial": {MODULE: initial},
        }
    )


def pooled_run(centers: Sequence[Center], *, seed: int) -> dict[str, Any]:
    """All training rows in one place, by their common scale, for 50 epochs."""
    together = make_table(
        "together",
        np.concatenate([center.pooled_RF for center in centers]),
        np.concatenate([center.pooled_RF for center in centers]),
        np.concatenate([center.labels_R for center in centers]),
        np.concatenate([center.is_test_R for center in centers]),
        iter(()),
    )
    return _reference("pooled", centers, together, seed=seed)


def local_run(centers: Sequence[Center], place: int, *, seed: int) -> dict[str, Any]:
    """One center's training rows alone, for 50 epochs."""
    center = centers[place]
    return _reference(f"local {center.name}", centers, table_of(center, iter(())), seed=seed)


def cyclic_run(centers: Sequence[Center], *, seed: int, rounds: int, steps: int) -> dict[str, Any]:
    """One model handed from center to center in an order that is drawn anew for each turn, without a mean."""
    start, classifier = initial_weights(seed), initial_weights(seed)
    trains = [np.flatnonzero(~center.is_test_R) for center in centers]
    # The generator of batches is shared by all centers, whose turns come in another order than their names.
    generator, turns = np.random.default_rng(seed), []
    for _ in range(rounds):
        turns.append(generator.permutation(len(centers)))
    orders = batch_rounds(trains, rounds=rounds, steps=steps, seed=seed)
    phase = _phase({"name": "sgd", "lr": CYCLE_RATE}, steps=steps)
    tables = [table_of(center, order) for center, order in zip(centers, orders, strict=True)]
    for number, turn in enumerate(turns, start=1):
        for place in turn:
            _train(classifier, tables[place], phase, round_index=number, seed=seed)
    return _measured("cyclic", centers, start, classifier, seed=seed)


def _reference(name: str, centers: Sequence[Center], table: Table, *, seed: int) -> dict[str, Any]:
    rows = np.flatnonzero(table.row_split == 0)
    steps = REFERENCE_EPOCHS * -(-len(rows) // BATCH)
    (order,) = batch_rounds([rows], rounds=1, steps=steps, seed=seed)
    start, classifier = initial_weights(seed), initial_weights(seed)
    _train(
        classifier,
        replace(table, rounds=order),
        _phase(REFERENCE_OPTIMISER, steps=steps),
        round_index=1,
        seed=seed,
    )
    return _measured(name, centers, start, classifier, seed=seed)


def _phase(optimiser: Mapping[str, Any], *, steps: int) -> Phase:
    return Phase.model_validate(
        {
            "task": TASK,
            "rounds": 1_000,
            "local_steps": steps,
            "batch_size": BATCH,
            "optimiser": {**optimiser, "schedule": "constant", "weight_decay": 0.0},
        }
    )


def _train(classifier: nn.Module, table: Table, phase: Phase, *, round_index: int, seed: int) -> None:
    view = SiteView(cohort=table, shape=shape_of("nano"), device=torch.device("cpu"))
    train_locally(
        HeartDisease({}), {MODULE: classifier}, view, phase=phase, round_index=round_index, seed=seed
    )


def _measured(
    name: str, centers: Sequence[Center], start: nn.Module, classifier: nn.Module, *, seed: int
) -> dict[str, Any]:
    own, pooled, rows = {}, {}, {}
    for center in centers:
        labels_R = torch.from_numpy(center.labels_R[center.is_test_R])
        rows[center.name] = len(labels_R)
        own[center.name] = hits(classifier, torch.from_numpy(center.features_RF[center.is_test_R]), labels_R)
        pooled[center.name] = hits(classifier, torch.from_numpy(center.pooled_RF[center.is_test_R]), labels_R)
    by_site = {name: own[name] / rows[name] for name in rows}
    return {
        "strategy": name,
        "seed": seed,
        "accuracy_pooled": sum(pooled.values()) / sum(rows.values()),
        "accuracy_mean": float(np.mean(list(by_site.values()))),
        "accuracy_pooled_own_scale": sum(own.values()) / sum(rows.values()),
        "accuracy_by_site": by_site,
        "initial": _flat(export_tensors(start)),
        "final": _flat(export_tensors(classifier)),
    }


def _write_initial(classifier: nn.Module, folder: Path) -> str:
    """The weights that the study names as given; returns their digest."""
    folder.mkdir(parents=True)
    tensors = export_tensors(classifier)
    save_file(tensors, folder / f"{MODULE}.safetensors")
    return module_digest(layout_of(tensors), pack(tensors))


def _write_site(folder: Path, center: Center) -> Path:
    """A site's document; its source is named for the document's sake, the table is opened in its place."""
    path = folder / "site.yaml"
    write_site(
        path,
        {
            "schema_version": 1,
            "site": center.name,
            "source": {"kind": "mimic_iv_ecg", "root": "."},
            "device": {"name": "cpu", "threads": 1},
            "policy": {"phases": [TASK], "minimum_patients": 20, "minimum_cell": 5},
            "folders": {"cache": "cache", "state": "state", "secret": "secret/pseudonym.key"},
        },
    )
    ensure_key(folder / "secret" / "pseudonym.key")
    return path


def _flat(tensors: Mapping[str, np.ndarray]) -> list[float]:
    """The 13 coefficients, then the bias."""
    return [float(value) for name in ("weight", "bias") for value in np.ravel(tensors[name])]
