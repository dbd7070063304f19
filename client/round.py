"""One order answered: check, train or measure, gate, reply (steps 0 and 5 to 9 of the walk)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cardionets_core.config.study import Study, study_from_json
from cardionets_core.data.cache import summary
from cardionets_core.data.cohort import SPLITS
from cardionets_core.data.derived import derived_folder
from cardionets_core.errors import OrderRefusedError, PhaseNotPermittedError, TooFewPatientsError
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.tasks import (
    ClosedFormTask,
    GradientTask,
    MeasureTask,
    Role,
    SiteView,
    Task,
    make_task,
)
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.controls import TAKEN
from cardionets_core.training.first_loss import first_loss
from cardionets_core.training.local import round_statistics, train_locally
from cardionets_core.training.local_rule import FIRST_LOSS, NORMALISER, LocalRule, local_rule
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.pull import Pull
from cardionets_core.training.seeds import derive_seed
from client.controls import Controls
from client.gate import release
from client.local_tensors import LocalTensors
from client.memory import DiskMemory
from client.modules import build_modules, held_digests, pack_module
from client.personal import PREFIX, Personal
from client.site import Site, open_site, serving_role


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """All that one order is answered with."""

    order: Order
    site: Site
    study: Study
    task: Task
    role: Role
    modules: Mapping[str, torch.nn.Module]
    view: SiteView
    rule: LocalRule
    local: LocalTensors
    personal: Personal


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
    role = serving_role(site, task, shape)
    if order.kind == "census":
        return _census(order, site, task)
    if site.config.policy.role == "external" and order.kind != "evaluate":
        raise PhaseNotPermittedError(
            "this site measures models and trains none", where="site.yaml: policy.role"
        )
    rule, state = local_rule(study), site.config.folders.state
    # Control variates and the like travel with the orders to train, where there are steps to correct.
    corrected = order.kind == "train" and isinstance(task, GradientTask)
    modules = build_modules(
        order,
        task,
        preset=study.preset,
        frozen_folder=state / "frozen",
        device=site.device,
        extras=rule.extra_names(task.trains) if corrected else (),
    )
    local = LocalTensors(state, order=order, rule=rule)
    kept = Kept(derived_folder(site.config), cohort=site.cohort.digest, digests=local.lay_over(modules))
    shared = {name: value for name, value in order.shared.items() if name != TAKEN}
    work = _Work(
        order=order,
        site=site,
        study=study,
        task=task,
        role=role,
        modules=modules,
        view=SiteView(cohort=site.cohort, shape=shape, device=site.device, kept=kept, shared=shared),
        rule=rule,
        local=local,
        personal=Personal(state=state, order=order, rule=rule),
    )
    return _WORKERS[order.kind](work)


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
        "role": site.config.policy.role,
        "holds": held_digests(site.config.folders.state / "frozen"),
    }
    reply = Reply(site=site.name, name=order.name, facts=json.dumps(facts, sort_keys=True))
    return release(reply, order=order, config=site.config, patients=0, trains=())


def _train(work: _Work) -> Reply:
    start, order, task, site = time.monotonic(), work.order, work.task, work.site
    rows = work.view.rows(work.role.needs, "train")
    if isinstance(task, MeasureTask):
        raise OrderRefusedError(f"task {task.name} measures and trains nothing", where="order")
    if isinstance(task, ClosedFormTask):
        sums = task.sums(work.modules, work.view)
        reply = Reply(
            site=site.name, name=order.name, sums=sums, values={"train_seconds": time.monotonic() - start}
        )
        return _release(reply, work, rows)
    if not isinstance(task, GradientTask):
        raise OrderRefusedError(f"task {task.name} is not trained by steps", where="order")
    device, state, phase = site.config.device, site.config.folders.state, work.study.phases[order.name.phase]
    numerics = Numerics(precision=device.precision, compile=device.compile, prefetch=device.prefetch)
    rule, role, seed = work.rule, work.role, _seed(work)
    values: dict[str, float] = {}
    if FIRST_LOSS in rule.reports:
        values[FIRST_LOSS] = first_loss(
            task, work.modules, work.view, phase=phase, round_index=order.name.round, seed=seed, role=role,
            numerics=numerics,
        )  # fmt: skip
    # Before the global steps: the personal model is drawn to what was sent.
    work.personal.train(task, work.modules, work.view, phase=phase, seed=seed, role=role, numerics=numerics)
    controls = Controls(state, site=site.name, order=order, trains=role.trains) if rule.extras else None
    result = train_locally(
        task,
        work.modules,
        work.view,
        phase=phase,
        round_index=order.name.round,
        seed=seed,
        role=role,
        numerics=numerics,
        memory=DiskMemory(state / "optimiser", study_digest=order.name.study_digest, phase=order.name.phase),
        pull=Pull(mu=rule.mu, shift=controls.shift if controls else {}),
    )
    if NORMALISER in rule.reports:
        values[NORMALISER] = result.normaliser
    trained = {name: pack_module(work.modules[name]) for name in role.trains} if result.samples else {}
    samples = dict.fromkeys(trained, result.samples)
    if controls:
        trained |= controls.close(trained, way=result.way)
    if rule.local and trained:
        work.local.keep(work.modules, role.trains)
        trained = {name: work.local.take_out(name, packed) for name, packed in trained.items()}
    reply = Reply(
        site=site.name,
        name=order.name,
        modules=trained,
        samples=samples,
        values={
            "loss": result.loss_mean,
            **{f"part/{name}": value for name, value in result.parts.items()},
            **values,
            "steps": float(result.steps),
            "role": float(task.roles.index(role)),
            "train_seconds": time.monotonic() - start,
        },
    )
    return _release(reply, work, rows)


def _statistics(work: _Work) -> Reply:
    order, task = work.order, work.task
    if not isinstance(task, GradientTask) or not task.shares:
        raise OrderRefusedError(f"task {task.name} shares no statistics", where="order")
    sums = round_statistics(
        task,
        work.modules,
        work.view,
        phase=work.study.phases[order.name.phase],
        round_index=order.name.round,
        seed=_seed(work),
        role=work.role,
    )
    reply = Reply(
        site=work.site.name,
        name=order.name,
        sums=sums,
        values={"role": float(task.roles.index(work.role))},
    )
    return _release(reply, work, work.view.rows(work.role.needs, "train"))


def _evaluate(work: _Work) -> Reply:
    order, site = work.order, work.site
    rows = work.view.rows(work.task.needs, order.split)
    patients, fewest = site.cohort.patients(rows), site.config.policy.minimum_cell
    if patients < fewest:
        raise TooFewPatientsError(
            f"{patients} held-out patients in {order.split}; the policy asks for {fewest}",
            where="site.yaml: policy.minimum_cell",
        )
    seed = derive_seed(work.study.seed, "evaluate", order.name.phase, site.name)
    work.task.prepare_modules(work.modules)
    sums = work.task.metric_sums(work.modules, work.view, split=order.split, seed=seed)
    if isinstance(work.task, GradientTask) and work.rule.personal_of(work.task.trains):
        personal = work.personal.for_measuring(work.task, work.modules)
        own = sums
        if personal is not None:
            work.task.prepare_modules(personal)
            own = work.task.metric_sums(personal, work.view, split=order.split, seed=seed)
        sums = sums | {PREFIX + name: value for name, value in own.items()}
    return _release(Reply(site=site.name, name=order.name, sums=sums), work, rows)


_WORKERS: dict[str, Callable[[_Work], Reply]] = {
    "train": _train,
    "statistics": _statistics,
    "evaluate": _evaluate,
}


def _seed(work: _Work) -> int:
    name = work.order.name
    return derive_seed(work.study.seed, "train", name.phase, name.round, work.site.name)


def _release(reply: Reply, work: _Work, rows: np.ndarray) -> Reply:
    patients = work.site.cohort.patients(rows)
    trains = work.role.trains
    return release(
        reply, order=work.order, config=work.site.config, patients=patients, trains=trains, rule=work.rule
    )
