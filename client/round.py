"""One order answered: check, train or measure, gate, reply (steps 0 and 5 to 9 of the walk)."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cardionets_core.config.study import Study, study_from_json
from cardionets_core.data.cache import summary
from cardionets_core.data.cohort import SPLITS
from cardionets_core.data.derived import derived_folder
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import OrderRefusedError, PhaseNotPermittedError
from cardionets_core.exchange.messages import Envelope, Order, Reply, reply_from_envelope
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.tasks import GradientTask, SiteView, Task, task_of
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.controls import TAKEN
from cardionets_core.training.local import round_statistics
from cardionets_core.training.local_rule import local_rule
from client.gate import release
from client.leaving import round_facts
from client.local_tensors import LocalTensors
from client.log import site_log
from client.measuring import Measurement, measure, measure_first
from client.modules import build_modules, held_digests, with_held
from client.permitted import Permitted, permitted
from client.personal import Personal
from client.privacy_policy import check_policy
from client.replies import ReplyStore
from client.secure import Masking, SecureSessions
from client.site import Site, open_site, serving_role
from client.spending import Spending
from client.training import train
from client.work import Answered, Work

VERSIONS = ("cardionets", "flwr", "torch")


def answer(order: Order, *, site_path: Path) -> Reply:
    """``respond``, read as the coordinator reads it."""
    return reply_from_envelope(respond(order, site_path=site_path))


def respond(order: Order, *, site_path: Path) -> Envelope:
    """Do what an order asks, within what the site permits.

    Args:
        order: the order, as it came off the wire.
        site_path: of ``site.yaml``.

    Returns:
        What passed the gate, as it travels.

    Raises:
        CardioNetsError: any refusal; the app turns it into its code.
    """
    # Between the rounds of a phase the files are not compared again; each phase begins with a census.
    site = open_site(site_path, check="full" if order.kind == "census" else "quick")
    study = study_from_json(order.study_json, digest=order.name.study_digest)
    task, shape = _task_of(order, study), shape_of(study.models)
    if study.phases[order.name.phase].rounds > site.config.policy.maximum_rounds:
        raise PhaseNotPermittedError(
            f"the phase asks for {study.phases[order.name.phase].rounds} rounds; "
            f"the policy allows {site.config.policy.maximum_rounds}",
            where="site.yaml: policy.maximum_rounds",
        )
    torch.set_num_threads(site.config.device.threads)
    role = serving_role(site, task, shape)
    root = site_path.parent
    check_policy(study, site.config)
    if order.kind == "census":
        return _census(order, site, root=root)
    if site.config.policy.role == "external" and order.kind != "evaluate":
        raise PhaseNotPermittedError(
            "this site measures models and trains none", where="site.yaml: policy.role"
        )
    is_private, secure = study.privacy.mechanism != "none", study.secure_aggregation
    sessions = SecureSessions(site.name, root=root, state=site.config.folders.state)
    if order.kind == "secure":
        if secure is None:
            raise OrderRefusedError("the study has no secure aggregation", where="order")
        message = sessions.answer(order, study)
        reply = Reply(site=site.name, name=order.name, secure=message)
        return release(reply, order=order, config=site.config, patients=0, root=root)
    if not study.exact_sums_leave and (order.kind in ("statistics", "evaluate") or order.measure):
        raise PhaseNotPermittedError(
            "the study trains with differential privacy: exact sums do not leave",
            where="order",
            remedy="ask no site to measure; sums that no noise hides would tell of patients",
        )
    rule, state, trains = local_rule(study), site.config.folders.state, order.kind == "train"
    # Control variates, local tensors and coded updates are told from the modules as they were sent.
    reads_sent = trains and bool(rule.extras or rule.local or rule.form != "fp32" or secure)
    hides = not study.exact_sums_leave
    allowed = permitted(order, task, preset=study.models, role=role, rule=rule, is_noised=hides)
    masking = partial(Masking, sessions, study=study, task=task, role=role)
    replies = ReplyStore(state / "replies", maximum_bytes=2 * site.config.policy.maximum_reply_bytes)
    found = replies.find(order)
    if found is not None:
        order = with_held(order, state=state) if reads_sent else order
        return release(
            found.reply,
            order=order,
            config=site.config,
            patients=found.patients,
            permitted=allowed,
            measured=found.measured,
            again=True,
            root=root,
            mask=None if secure is None else masking(order=order).mask,
        )
    extras = rule.extras_of(task) if trains else ()
    modules = build_modules(order, task, preset=study.models, state=state, device=site.device, extras=extras)
    if reads_sent:
        order = with_held(order, state=state)
    local = LocalTensors(state, order=order, rule=rule)
    digests = local.lay_over(modules)
    shared = {name: value for name, value in order.shared.items() if name != TAKEN}
    work = Work(
        order=order,
        site=site,
        study=study,
        task=task,
        role=role,
        modules=modules,
        view=_view(site, shape, digests, shared=shared),
        rule=rule,
        local=local,
        personal=Personal(state=state, order=order, rule=rule),
    )
    if is_private and trains:
        work = replace(work, spending=Spending(work.site, study, name=order.name, seed=work.seed))
    before = None
    if order.measure and trains:
        before = measure_first(work, _view(site, shape, digests, shared={}))
    begun_s = time.monotonic()
    answered = _WORKERS[order.kind](work)
    spent_s = round(time.monotonic() - begun_s, 3)
    facts = round_facts(order.kind, order.name)
    site_log(root, site=site.name).write(_WORKED[order.kind], seconds=spent_s, **facts)
    mask = None if secure is None else masking(order=order).mask
    return _release(answered, work, allowed, replies=replies, before=before, root=root, mask=mask)


def _view(
    site: Site, shape: InputShape, digests: Mapping[str, str], *, shared: Mapping[str, np.ndarray]
) -> SiteView:
    kept = Kept(derived_folder(site.config), cohort=site.cohort.digest, digests=digests)
    return SiteView(
        cohort=site.cohort,
        shape=shape,
        device=site.device,
        kept=kept,
        shared=dict(shared),
        smallest_cell=site.config.policy.minimum_cell,
    )


def _task_of(order: Order, study: Study) -> Task:
    if not 0 <= order.name.phase < len(study.phases):
        raise OrderRefusedError("the order names a phase that the study does not have", where="order")
    phase = study.phases[order.name.phase]
    if order.kind != "census" and not 1 <= order.name.round <= phase.rounds:
        raise OrderRefusedError("the order names a round that the phase does not have", where="order")
    return task_of(phase, study)


def _census(order: Order, site: Site, *, root: Path) -> Envelope:
    counts = summary(site.cohort)
    sizes = {
        "patients": {split: counts[split]["patients"] for split in SPLITS},
        "recordings": {
            kind: sum(counts[split][key] for split in SPLITS)
            for kind, key in (("ecg", "recordings"), ("cine", "cines"), ("pair", "pairs"))
        },
        "refusals": counts["refusals"],
    }
    if "sax" in site.cohort.row_views:
        sizes["recordings"]["sax"] = sum(counts[split]["views"]["sax"] for split in SPLITS)
    facts = {
        "role": site.config.policy.role,
        "holds": held_digests(site.config.folders.state),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        **(sizes if site.config.policy.cohort_sizes else {}),
    }
    reply = Reply(site=site.name, name=order.name, facts=json.dumps(facts, sort_keys=True))
    return release(reply, order=order, config=site.config, patients=0, root=root)


def _statistics(work: Work) -> Answered:
    order, task = work.order, work.task
    if not isinstance(task, GradientTask) or not task.shares:
        raise OrderRefusedError(f"task {task.name} shares no statistics", where="order")
    sums = round_statistics(
        task,
        work.modules,
        work.view,
        phase=work.phase,
        round_index=order.name.round,
        seed=work.seed,
        role=work.role,
    )
    reply = Reply(
        site=work.site.name,
        name=order.name,
        sums=sums,
        values={"role": float(task.roles.index(work.role))},
    )
    return Answered(reply=reply, rows=work.view.rows(work.role.row_needs, "train"))


def _evaluate(work: Work) -> Answered:
    order, site = work.order, work.site
    found = measure(work, work.modules, work.view, split=order.split)
    reply = Reply(site=site.name, name=order.name, sums=found.sums)
    return Answered(reply=reply, rows=work.view.rows(work.task.needs, order.split))


_WORKERS: dict[str, Callable[[Work], Answered]] = {
    "train": train,
    "statistics": _statistics,
    "evaluate": _evaluate,
}
_WORKED = {"train": "trained", "statistics": "summed", "evaluate": "measured"}
"""What the site's log says once that is done."""


def _release(
    answered: Answered,
    work: Work,
    allowed: Permitted,
    *,
    replies: ReplyStore,
    before: Measurement | None,
    root: Path,
    mask: Callable[[Reply], Ring] | None,
) -> Envelope:
    """Through the gate, then into the store: from here on the same order gets the same reply."""
    reply, measured, site = answered.reply, None, work.site
    if before is not None:
        reply = replace(reply, sums={**reply.sums, **before.sums}, measure_code=before.code)
        measured = None if before.rows is None else site.cohort.patients(before.rows)
    patients = site.cohort.patients(answered.rows)

    def kept_and_masked(plain: Reply) -> Ring:
        # What is masked is kept as it was before: another attempt masks the same values anew.
        assert mask is not None
        replies.keep(work.order, plain, patients=patients, measured=measured)
        return mask(plain)

    released = release(
        reply,
        order=work.order,
        config=site.config,
        patients=patients,
        permitted=allowed,
        measured=measured,
        root=root,
        mask=None if mask is None else kept_and_masked,
    )
    if mask is None:
        replies.keep(work.order, reply_from_envelope(released), patients=patients, measured=measured)
    return released
