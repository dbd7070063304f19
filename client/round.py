"""One order answered: check, train or measure, gate, reply (steps 0 and 5 to 9 of the walk)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from cardionets_core.config.study import Study, study_from_json
from cardionets_core.data.cache import summary
from cardionets_core.data.cohort import SPLITS
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import OrderRefusedError, PhaseNotPermittedError, TooFewPatientsError
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.tasks import ClosedFormTask, Task, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.local import train_locally
from cardionets_core.training.seeds import derive_seed
from client.gate import release
from client.modules import build_modules, held_digests, pack_module
from client.site import Site, open_site, training_rows


def answer(order: Order, *, site_path: Path) -> Reply:
    """Do what an order asks, within what the site permits.

    Args:
        order: the order, as it came off the wire.
        site_path: of ``site.yaml``.

    Returns:
        The reply that passed the gate.

    Raises:
        CardioNetsError: any refusal; the app turns it into its code.
    """
    # Between the rounds of a phase the files are not compared again; each phase begins with a census.
    site = open_site(site_path, check="full" if order.kind == "census" else "quick")
    study = study_from_json(order.study_json, digest=order.name.study_digest)
    task, shape = _task_of(order, study), shape_of(study.preset)
    if study.phases[order.name.phase].rounds > site.config.policy.maximum_rounds:
        raise PhaseNotPermittedError(
            f"the phase asks for {study.phases[order.name.phase].rounds} rounds; "
            f"the policy allows {site.config.policy.maximum_rounds}",
            where="site.yaml: policy.maximum_rounds",
        )
    torch.set_num_threads(site.config.device.threads)
    rows = training_rows(site, task, shape)
    if order.kind == "census":
        return _census(order, site, task)
    modules = build_modules(
        order,
        task,
        preset=study.preset,
        frozen_folder=site.config.folders.state / "frozen",
        device=site.device,
    )
    if order.kind == "train":
        reply = _train(order, site, study, task, modules, shape)
        patients = site.cohort.patients(rows)
    else:
        held_out = site.cohort.rows(task.needs, order.split, shape)
        patients = site.cohort.patients(held_out)
        if patients < site.config.policy.minimum_cell:
            raise TooFewPatientsError(
                f"{patients} held-out patients in {order.split}; the policy asks for "
                f"{site.config.policy.minimum_cell}",
                where="site.yaml: policy.minimum_cell",
            )
        reply = _evaluate(order, site, study, task, modules, shape)
    return release(reply, order=order, config=site.config, patients=patients, trains=task.trains)


def _task_of(order: Order, study: Study) -> Task:
    if not 0 <= order.name.phase < len(study.phases):
        raise OrderRefusedError("the order names a phase that the study does not have", where="order")
    phase = study.phases[order.name.phase]
    if order.kind != "census" and not 1 <= order.name.round <= phase.rounds:
        raise OrderRefusedError("the order names a round that the phase does not have", where="order")
    return make_task(phase.task, phase.options)


def _census(order: Order, site: Site, task: Task) -> Reply:
    counts = summary(site.cohort)
    facts = {
        "patients": {split: counts[split]["patients"] for split in SPLITS},
        "recordings": {
            kind: sum(counts[split][key] for split in SPLITS)
            for kind, key in (("ecg", "recordings"), ("cine", "cines"), ("pair", "pairs"))
        },
        "refusals": counts["refusals"],
        "holds": held_digests(site.config.folders.state / "frozen"),
    }
    reply = Reply(site=site.name, name=order.name, facts=json.dumps(facts, sort_keys=True))
    return release(reply, order=order, config=site.config, patients=0, trains=task.trains)


def _train(
    order: Order,
    site: Site,
    study: Study,
    task: Task,
    modules: Mapping[str, torch.nn.Module],
    shape: InputShape,
) -> Reply:
    start = time.monotonic()
    seed = derive_seed(study.seed, "train", order.name.phase, order.name.round, site.name)
    if isinstance(task, ClosedFormTask):
        sums = task.sums(modules, site.cohort, shape=shape, device=site.device)
        return Reply(
            site=site.name, name=order.name, sums=sums, values={"train_seconds": time.monotonic() - start}
        )
    result = train_locally(
        task,
        modules,
        site.cohort,
        phase=study.phases[order.name.phase],
        round_index=order.name.round,
        seed=seed,
        shape=shape,
        device=site.device,
    )
    trained = {name: pack_module(modules[name]) for name in task.trains} if result.samples else {}
    return Reply(
        site=site.name,
        name=order.name,
        modules=trained,
        samples=dict.fromkeys(trained, result.samples),
        values={
            "loss": result.loss_mean,
            "steps": float(result.steps),
            "train_seconds": time.monotonic() - start,
        },
    )


def _evaluate(
    order: Order,
    site: Site,
    study: Study,
    task: Task,
    modules: Mapping[str, torch.nn.Module],
    shape: InputShape,
) -> Reply:
    seed = derive_seed(study.seed, "evaluate", order.name.phase, site.name)
    task.prepare_modules(modules)
    sums = task.metric_sums(
        modules, site.cohort, split=order.split, shape=shape, device=site.device, seed=seed
    )
    return Reply(site=site.name, name=order.name, sums=sums)
