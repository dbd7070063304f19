"""What the study itself allows in the reply to an order: names, shapes, layouts, counts (row 9 of the walk).

Comes in: an order, its study and its task, the site's role in it. Goes out: what the gate compares the reply
with. It is told from the study and the order alone, never from the reply or the site's data. What an order
may bring beside its modules is told in the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cardionets_core.errors import OrderRefusedError
from cardionets_core.exchange.messages import MEASURED, Order
from cardionets_core.exchange.tensors import Layout
from cardionets_core.models import build_module
from cardionets_core.privacy.counts import PEOPLE, Counts
from cardionets_core.tasks import GradientTask, Role, Task
from cardionets_core.tasks.expected_sums import Shapes, expected_sums
from cardionets_core.training.controls import TAKEN
from cardionets_core.training.local_rule import LocalRule

PLAIN = LocalRule()
OF_STEPS = frozenset({"loss", "steps", "role", "train_seconds"})
PRIVATE = frozenset({"steps", "role"})
"""Of a private study: neither tells of the patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """What a reply may hold.

    Attributes:
        layouts: modules that may leave, and what the strategy sends beside them.
        sums: name to shape of every sum.
        counts: which of them are counts.
        values: names of the other numbers.
        rule: what the study's strategy adds, and what of a module may not leave.
    """

    layouts: Mapping[str, Layout] = field(default_factory=dict)
    sums: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    values: frozenset[str] = frozenset()
    rule: LocalRule = PLAIN


def permitted(
    order: Order, task: Task, *, preset: str, role: Role, rule: LocalRule, is_noised: bool = False
) -> Permitted:
    """What the reply to an order may hold.

    Args:
        order: what was asked.
        task: of its phase.
        preset: of the study.
        role: the site's in the phase.
        rule: of the study.
        is_noised: whether the study lets nothing out but what noise hides; counts of a group are none then,
            only noise about a number that may be 0.
    """
    counts, measured, expected = {**task.counts, **PEOPLE}, {}, expected_sums(preset)
    if order.kind == "evaluate" or (order.kind == "train" and order.measure):
        measured = rule.metric_shapes(task, expected.of_metrics(task))
    if order.kind == "evaluate":
        return Permitted(sums=measured, counts=counts, rule=rule)
    if order.kind == "statistics":
        return Permitted(sums=expected.of_shared(task), counts=counts, values=frozenset({"role"}), rule=rule)
    if order.kind == "census":
        return Permitted()
    first = {MEASURED + name: shape for name, shape in measured.items()}
    sums = {**expected.of_training(task), **first}
    if not isinstance(task, GradientTask):
        if is_noised:
            return Permitted(sums=sums, rule=rule)
        return Permitted(sums=sums, counts=counts, values=frozenset({"train_seconds"}), rule=rule)
    layouts = {name: _layout(name, preset) for name in role.trains}
    layouts |= {extra: layouts[extra.partition(".")[0]] for extra in rule.extra_names(role.trains)}
    values = (PRIVATE if is_noised else OF_STEPS) | frozenset(rule.reports)
    return Permitted(layouts=layouts, sums=sums, counts=counts, values=values, rule=rule)


def check_shared(order: Order, task: Task, *, preset: str) -> None:
    """What the sites added up must be of the names and shapes that the task makes, and finite.

    Raises:
        OrderRefusedError: names the array.
    """
    given = dict(order.shared)
    marks = given.pop(TAKEN, np.zeros(1))
    if marks.ndim != 1 or not np.isfinite(marks).all():
        raise OrderRefusedError("the order's marks of taken replies are none", where="order")
    if not given:
        return  # a task that lacks them says so
    wanted: Shapes = {}
    if order.kind == "train" and isinstance(task, GradientTask) and task.shares:
        wanted = expected_sums(preset).of_statistics(task)
    for name, value in given.items():
        if wanted.get(name) != value.shape or not np.isfinite(value).all():
            raise OrderRefusedError(f"the order shares {name}, not as the task makes it", where="order")
    if given.keys() != wanted.keys():
        raise OrderRefusedError("the order shares a part of the task's statistics", where="order")


@functools.lru_cache(maxsize=64)
def _layout(module: str, preset: str) -> Layout:
    tensors = dict(build_module(module, preset, seed=0, device="meta").named_parameters())
    return Layout(names=tuple(tensors), shapes=tuple(tuple(each.shape) for each in tensors.values()))
