"""An order to train, answered: local steps or sums, and what the strategy adds to them (steps 5 to 8).

Comes in: an order that is opened. Goes out: a reply that has not passed the gate. What lasts at the site is
on its disk by then, named by the round.
"""

from __future__ import annotations

import time

from cardionets_core.errors import OrderRefusedError
from cardionets_core.exchange.messages import Reply
from cardionets_core.tasks import ClosedFormTask, GradientTask, MeasureTask
from cardionets_core.tasks.base import Sums
from cardionets_core.training.first_loss import first_loss
from cardionets_core.training.local import train_locally
from cardionets_core.training.local_rule import FIRST_LOSS, NORMALISER
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.private_sums import private_sums
from cardionets_core.training.pull import Pull
from client.controls import Controls
from client.memory import DiskMemory
from client.modules import pack_module
from client.updates import Updates
from client.work import Answered, Work


def train(work: Work) -> Answered:
    """Train what the site's role trains, or make the task's sums.

    Raises:
        OrderRefusedError: the task trains nothing, or the order lacks what the strategy needs.
    """
    start, task = time.monotonic(), work.task
    rows = work.view.rows(work.role.row_needs, "train")
    if isinstance(task, MeasureTask):
        raise OrderRefusedError(f"task {task.name} measures and trains nothing", where="order")
    if isinstance(task, ClosedFormTask):
        sums = _sums(work, task)
        values = {"train_seconds": time.monotonic() - start} if work.study.exact_sums_leave else {}
        reply = Reply(site=work.site.name, name=work.order.name, sums=sums, values=values)
        return Answered(reply=reply, rows=rows)
    if not isinstance(task, GradientTask):
        raise OrderRefusedError(f"task {task.name} is not trained by steps", where="order")
    return Answered(reply=_by_steps(work, task, start=start), rows=rows)


def _sums(work: Work, task: ClosedFormTask) -> Sums:
    if work.study.exact_sums_leave:
        return task.sums(work.modules, work.view)
    assert work.spending is not None  # of a private study
    noise, randomness = work.spending.sums(task)
    sums = private_sums(task, work.modules, work.view, noise_multiplier=noise, randomness=randomness)
    work.spending.commit()
    return sums


def _by_steps(work: Work, task: GradientTask, *, start: float) -> Reply:
    order, site, rule, role = work.order, work.site, work.rule, work.role
    device, state, phase, seed = site.config.device, site.config.folders.state, work.phase, work.seed
    numerics = Numerics(precision=device.precision, compile=device.compile, prefetch=device.prefetch)
    values: dict[str, float] = {}
    if FIRST_LOSS in rule.reports:
        values[FIRST_LOSS] = first_loss(
            task,
            work.modules,
            work.view,
            phase=phase,
            round_index=order.name.round,
            seed=seed,
            role=role,
            numerics=numerics,
        )
    # Before the global steps: the personal model is drawn to what was sent.
    work.personal.train(task, work.modules, work.view, phase=phase, seed=seed, role=role, numerics=numerics)
    updates = Updates(state, site=site.name, order=order, rule=rule)
    controls = Controls(state, site=site.name, order=order, trains=role.trains) if rule.extras else None
    # Reserved before the first step, committed when the result is ready: nothing has left by then.
    private = work.spending.steps(task) if work.spending else None
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
        private=private,
    )
    if work.spending:
        work.spending.commit()
    if NORMALISER in rule.reports:
        values[NORMALISER] = result.normaliser
    # A module that no row of these steps had anything to say of is absent, as one that was not trained.
    samples = {name: count for name, count in result.samples_of.items() if count}
    trained = {name: pack_module(work.modules[name]) for name in samples}
    beside = controls.close(trained, way=result.way) if controls else {}
    if rule.local and trained:
        work.local.keep(work.modules, role.trains)
        trained = {name: work.local.take_out(name, packed) for name, packed in trained.items()}
    if work.study.exact_sums_leave:
        values |= {f"part/{name}": value for name, value in result.parts.items()}
        # Both tell of the patients, and no noise hides them: a private study goes without.
        values |= {"loss": result.loss_mean, "train_seconds": time.monotonic() - start}
    values |= {"steps": float(result.steps), "role": float(task.roles.index(role))}
    return Reply(
        site=site.name,
        name=order.name,
        modules=updates.code(trained) | beside,
        samples=samples,
        values=values,
    )
