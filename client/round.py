"""One order answered: check, train or measure, gate, reply (steps 0 and 5 to 9 of the walk)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cardionets_core.config.study import Study, study_from_json
from cardionets_core.data.cache import summary
from cardionets_core.data.cohort import SPLITS
from cardionets_core.data.derived import derived_folder
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import OrderRefusedError, PhaseNotPermittedError
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
from cardionets_core.training.local import round_statistics, train_locally
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.seeds import derive_seed
from client.gate import release
from client.measuring import Measurement, measure, measure_first
from client.memory import DiskMemory
from client.modules import build_modules, held_digests, pack_module
from client.replies import ReplyStore
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """A reply that has not passed the gate yet, and the rows behind it."""

    reply: Reply
    rows: np.ndarray


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
    replies = ReplyStore(
        site.config.folders.state / "replies", maximum_bytes=2 * site.config.policy.maximum_reply_bytes
    )
    found = replies.find(order)
    if found is not None:
        return release(
            found.reply,
            order=order,
            config=site.config,
            patients=found.patients,
            trains=role.trains,
            measured=found.measured,
            again=True,
        )
    modules = build_modules(
        order, task, preset=study.preset, state=site.config.folders.state, device=site.device
    )
    view = _view(order, site, shape, shared=order.shared)
    work = _Work(order=order, site=site, study=study, task=task, role=role, modules=modules, view=view)
    before = None
    if order.measure and order.kind == "train":
        apart = _view(order, site, shape, shared={})
        before = measure_first(site, study, task, modules, apart, phase=order.name.phase)
    return _release(_WORKERS[order.kind](work), work, replies=replies, before=before)


def _view(order: Order, site: Site, shape: InputShape, *, shared: Mapping[str, np.ndarray]) -> SiteView:
    kept = Kept(derived_folder(site.config), cohort=site.cohort.digest, digests=order.frozen)
    return SiteView(cohort=site.cohort, shape=shape, device=site.device, kept=kept, shared=dict(shared))


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
        "holds": held_digests(site.config.folders.state),
    }
    reply = Reply(site=site.name, name=order.name, facts=json.dumps(facts, sort_keys=True))
    return release(reply, order=order, config=site.config, patients=0, trains=())


def _train(work: _Work) -> _Answered:
    start, order, task, site = time.monotonic(), work.order, work.task, work.site
    rows = work.view.rows(work.role.needs, "train")
    if isinstance(task, MeasureTask):
        raise OrderRefusedError(f"task {task.name} measures and trains nothing", where="order")
    if isinstance(task, ClosedFormTask):
        sums = task.sums(work.modules, work.view)
        reply = Reply(
            site=site.name, name=order.name, sums=sums, values={"train_seconds": time.monotonic() - start}
        )
        return _Answered(reply=reply, rows=rows)
    device = site.config.device
    result = train_locally(
        task,
        work.modules,
        work.view,
        phase=work.study.phases[order.name.phase],
        round_index=order.name.round,
        seed=_seed(work),
        role=work.role,
        numerics=Numerics(precision=device.precision, compile=device.compile, prefetch=device.prefetch),
        memory=DiskMemory(
            site.config.folders.state / "optimiser",
            study_digest=order.name.study_digest,
            phase=order.name.phase,
        ),
    )
    trained = {name: pack_module(work.modules[name]) for name in work.role.trains} if result.samples else {}
    reply = Reply(
        site=site.name,
        name=order.name,
        modules=trained,
        samples=dict.fromkeys(trained, result.samples),
        values={
            "loss": result.loss_mean,
            **{f"part/{name}": value for name, value in result.parts.items()},
            "steps": float(result.steps),
            "role": float(task.roles.index(work.role)),
            "train_seconds": time.monotonic() - start,
        },
    )
    return _Answered(reply=reply, rows=rows)


def _statistics(work: _Work) -> _Answered:
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
    return _Answered(reply=reply, rows=work.view.rows(work.role.needs, "train"))


def _evaluate(work: _Work) -> _Answered:
    order, site = work.order, work.site
    found = measure(
        site, work.study, work.task, work.modules, work.view, phase=order.name.phase, split=order.split
    )
    reply = Reply(site=site.name, name=order.name, sums=found.sums)
    return _Answered(reply=reply, rows=work.view.rows(work.task.needs, order.split))


_WORKERS: dict[str, Callable[[_Work], _Answered]] = {
    "train": _train,
    "statistics": _statistics,
    "evaluate": _evaluate,
}


def _seed(work: _Work) -> int:
    name = work.order.name
    return derive_seed(work.study.seed, "train", name.phase, name.round, work.site.name)


def _release(answered: _Answered, work: _Work, *, replies: ReplyStore, before: Measurement | None) -> Reply:
    """Through the gate, then into the store: from here on the same order gets the same reply."""
    reply, measured, site = answered.reply, None, work.site
    if before is not None:
        reply = replace(reply, sums={**reply.sums, **before.sums}, measure_code=before.code)
        measured = None if before.rows is None else site.cohort.patients(before.rows)
    patients = site.cohort.patients(answered.rows)
    released = release(
        reply,
        order=work.order,
        config=site.config,
        patients=patients,
        trains=work.role.trains,
        measured=measured,
    )
    replies.keep(work.order, released, patients=patients, measured=measured)
    return released
