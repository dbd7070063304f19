"""A phenotype that nobody measured: no byte of its weights moves and nothing breaks (SCIENCE 8.20)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training import export_tensors, load_tensors, train_locally

pytestmark = pytest.mark.usefixtures("single_thread")
UNMEASURED = 7  # of make_people
NAMES = ("ecg_encoder", "phenotype_head", "phenotype_standardiser", "screening_head", "screening_prior")


def view(cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def trained(name: str, cohort, *, solved: str, module: str, optimiser: str = "adamw"):
    """The head before and after five steps on mean features."""
    modules = {n: build_module(n, "nano", seed=1) for n in NAMES}
    first = make_task(solved, {})
    load_tensors(modules[module], first.solve(add_sums({"a": first.sums(modules, view(cohort))})))
    task = make_task(name, {"windows": "mean", "bootstrap_replicates": 5})
    before = {key: value.copy() for key, value in export_tensors(modules[task.head]).items()}
    phase = Phase(
        task=name,
        rounds=1,
        local_steps=5,
        batch_size=8,
        optimiser=Optimiser(name=optimiser, lr=1e-2, weight_decay=0.0),
    )
    result = train_locally(task, modules, view(cohort), phase=phase, round_index=1, seed=0)
    assert result.steps == 5 and np.isfinite(result.loss_mean)
    found = task.metrics(task.metric_sums(modules, view(cohort), split="test", seed=0))
    assert all(np.isfinite(value) for value in found.values())
    return before, export_tensors(modules[task.head]), found


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_its_weights_keep_their_bytes_over_steps(make_people, optimiser):
    before, after, found = trained(
        "phenotype", make_people(30, site="a", seed=0), solved="standardise",
        module="phenotype_standardiser", optimiser=optimiser,
    )  # fmt: skip
    weight, bias = (next(reversed([k for k in after if k.endswith(kind)])) for kind in ("weight", "bias"))
    for key in (weight, bias):
        assert len(after[key]) == 82
        assert after[key][UNMEASURED].tobytes() == before[key][UNMEASURED].tobytes()
        others = [column for column in range(82) if column != UNMEASURED]
        assert (after[key][others] != before[key][others]).reshape(81, -1).any(axis=1).all()
    assert f"r2/{24100 + UNMEASURED}" not in found and f"r2/{24101 + UNMEASURED}" in found


def test_one_measured_column_trains_alone(make_people):
    cohort = make_people(30, site="a", seed=0)
    none = cohort.phenotypes.copy()
    none[cohort.row_split == 0] = np.nan
    none[:, 0] = cohort.phenotypes[:, 0]
    alone = replace(cohort, phenotypes=none, digest="alone")
    before, after, _ = trained("phenotype", alone, solved="standardise", module="phenotype_standardiser")
    last = next(reversed([key for key in after if key.endswith("weight")]))
    assert (after[last][1:] == before[last][1:]).all() and (after[last][0] != before[last][0]).any()


def test_a_disease_that_nobody_assessed_keeps_its_map(make_people):
    cohort = make_people(30, site="a", seed=0)
    cohort.diseases[:, 4:] = np.nan
    before, after, found = trained("screening", cohort, solved="prevalence", module="screening_prior")
    same = {key for key in after if after[key].tobytes() == before[key].tobytes()}
    assert same == {f"{part}.{kind}" for part in ("diseases.ph", "subtype") for kind in ("weight", "bias")}
    assert "auroc/ph" not in found and "auroc/cad" in found
