"""What a reply must be before it may touch the model (step 11 of the walk).

Bare Flower averages a NaN, a wrong shape or a claimed count of 10^12 without a word; here such a site is
left out of the round, named and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from cardionets_core.config.study import ReplyBounds
from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.messages import MEASURED, PERSONAL, Order, Reply
from cardionets_core.exchange.tensors import Layout
from cardionets_core.privacy.counts import PEOPLE, count_of
from cardionets_core.tasks import Role, Task
from cardionets_core.training.local_rule import FIRST_LOSS, NORMALISER, LocalRule
from server.checkpoint import Stretches

CHUNK_VALUES = 1 << 20
# FedAvg's products stay exact in float64 below this; no study has more samples in a round.
COUNT_LIMIT = 2**29 - 1
CODE = r"[a-z-]{0,40}"
SHOWN = 200
"""Characters of a stranger's names that an error shows."""
PLAIN = LocalRule()
LARGEST_SUM = 1e60
"""Sums of this size and their squares add up without overflow; those of any cohort are far smaller."""
COUNT_NAMES = frozenset({"n", "nj", "n_rows", "n_patients"})
VALUES = frozenset({"loss", "steps", "role", "train_seconds", FIRST_LOSS, NORMALISER})
"""Other numbers of a reply; each becomes a key of the site's row in the history, beside those of the row."""
PART = re.compile(r"part/[a-z][a-z0-9_]{0,40}")
MOST_PARTS = 32


def check_reply(
    reply: Reply,
    *,
    order: Order,
    site: str,
    layouts: Mapping[str, Layout],
    bounds: ReplyBounds,
    current: Callable[[str], np.ndarray | Stretches] | None = None,
    rule: LocalRule = PLAIN,
) -> None:
    """Judge a reply to a training order.

    Args:
        reply: the reply, without a refusal code.
        order: the order that it answers.
        site: the name under which the sender is known.
        layouts: the modules that the phase trains.
        bounds: the study's limits.
        current: gives the flat values of a module that the order only names.
        rule: what the study's strategy asks of a reply beside its modules.

    Raises:
        ReplyRefusedError: says what is wrong, with the module and tensor.
    """
    check_sender(reply, order=order, site=site)
    trained = set(reply.modules) & set(layouts)
    beside = set(rule.extra_names(trained))
    unexpected = sorted(set(reply.modules) - trained - beside)
    if unexpected:
        named = ascii(", ".join(unexpected))[:SHOWN]
        raise _refused(site, f"it sent modules that the phase does not train: {named}")
    if not beside <= set(reply.modules):
        raise _refused(site, "it sent a module without the tensors that the strategy asks for beside it")
    if set(reply.samples) != trained:
        raise _refused(site, "its sample counts do not name the modules that it sent")
    for name, module in reply.modules.items():
        layout = layouts[name.partition(".")[0]]
        _check_layout(site, name, module.layout, layout)
        if module.values.dtype != np.float32 or module.values.shape != (layout.size,):
            raise _refused(
                site,
                f"module {name} came as {module.values.dtype} {module.values.shape}, "
                f"not as {layout.size} float32 values",
            )
        if name in trained:
            _check_count(site, name, reply.samples[name], min(bounds.maximum_samples, COUNT_LIMIT))
        before: np.ndarray | Stretches = module.values
        largest = None
        kept = rule.kept_parts(name, layout) if name in trained else []
        # The bound is one of a module's move; a control variate is a gradient.
        if name in trained and (kept or bounds.maximum_update_norm is not None):
            before = order.modules[name].values if current is None else current(name)
            largest = bounds.maximum_update_norm
        _check_values(site, name, module.values, before, largest)
        if any(not np.array_equal(module.values[part], before[part]) for part in kept):
            raise _refused(site, f"module {name} came with tensors that stay at the site")
    check_values(reply, site=site)
    for name in rule.reports if trained else ():
        value = reply.values.get(name, -1.0)
        if value < 0.0 or (name == NORMALISER and value == 0.0):
            raise _refused(site, f"its value {name} is absent or too low")


def check_values(reply: Reply, *, site: str) -> None:
    """The other numbers of a reply must be those that we know, and finite.

    Raises:
        ReplyRefusedError: names the number.
    """
    if re.fullmatch(CODE, reply.measure_code) is None:
        raise _refused(site, "its reason for not measuring is no code")
    parts = [name for name in reply.values if PART.fullmatch(name)]
    strangers = sorted(set(reply.values) - VALUES - set(parts))
    if strangers or len(parts) > MOST_PARTS:
        raise _refused(site, f"it sent values that nobody knows: {ascii((strangers or parts)[0])[:SHOWN]}")
    for name, value in reply.values.items():
        if not math.isfinite(value):
            raise _refused(site, f"its value {name} is not finite")


def role_of(reply: Reply, task: Task, *, site: str) -> Role:
    """The role in which a site says that it took part.

    Raises:
        ReplyRefusedError: the task has no such role.
    """
    place = reply.values.get("role", 0.0)
    if place not in range(len(task.roles)):
        raise _refused(site, f"it took part in a role that task {task.name} does not have")
    return task.roles[int(place)]


def check_sender(reply: Reply, *, order: Order, site: str) -> None:
    """The reply must answer this order, under the sender's own name.

    Raises:
        ReplyRefusedError: it answers another round or speaks for another site.
    """
    if reply.name != order.name:
        raise _refused(site, "it answered another round or study")
    if reply.site != site:
        raise _refused(site, "it spoke under another site's name")


def measured_of(reply: Reply) -> tuple[Reply, Reply]:
    """A reply to a training order without its metric sums, and one that holds these alone."""
    before = {name.removeprefix(MEASURED): v for name, v in reply.sums.items() if name.startswith(MEASURED)}
    rest = {name: value for name, value in reply.sums.items() if not name.startswith(MEASURED)}
    return replace(reply, sums=rest), Reply(site=reply.site, name=reply.name, sums=before)


def check_sums(
    reply: Reply, *, site: str, expected: Mapping[str, tuple[int, ...]], task: Task | None = None
) -> None:
    """Metric and statistic sums must be those of the task: float64, finite, counts within bounds.

    Args:
        reply: the reply.
        site: the sender.
        expected: name to shape of every sum that the task makes.
        task: says which of them are counts; without it only the names that all tasks use are.

    Raises:
        ReplyRefusedError: names the array.
    """
    if {name: value.shape for name, value in reply.sums.items()} != dict(expected):
        raise _refused(site, "its sums have other names or shapes than the task's")
    counts = {} if task is None else {**task.counts, **PEOPLE}
    for name, value in reply.sums.items():
        if value.dtype != np.float64 or not np.isfinite(value).all():
            raise _refused(site, f"its sum {name} is not finite float64")
        if np.abs(value).max(initial=0) > LARGEST_SUM:
            raise _refused(site, f"its sum {name} is larger than any of ours")
        is_count = name.rpartition("/")[2] in COUNT_NAMES or count_of(name, counts) is not None
        if is_count and (value.min(initial=0) < 0 or value.max(initial=0) > COUNT_LIMIT):
            raise _refused(site, f"its count {name} is out of bounds")


def check_measured(reply: Reply, *, site: str, expected: Mapping[str, tuple[int, ...]], task: Task) -> None:
    """Metric sums must also be such that metrics follow from them: sums that contradict each other do not.

    Raises:
        ReplyRefusedError: they are not those of the task, or lead to no metrics.
    """
    check_sums(reply, site=site, expected=expected, task=task)
    own = {name.removeprefix(PERSONAL): v for name, v in reply.sums.items() if name.startswith(PERSONAL)}
    sent = {name: value for name, value in reply.sums.items() if not name.startswith(PERSONAL)}
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            for sums in (sent, own) if own else (sent,):
                task.metrics(sums)
    except Exception as error:  # whatever a stranger's numbers do to a formula, he is left out
        raise _refused(site, "its sums contradict each other: no metrics follow from them") from error


def _check_count(site: str, module: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise _refused(site, f"it claims {count} samples for {module}; the study allows 1 to {limit}")


def _check_layout(site: str, module: str, given: Layout, expected: Layout) -> None:
    if given.names != expected.names:
        raise _refused(site, f"the tensors of {module} have other names than the study's")
    for name, shape, wanted in zip(given.names, given.shapes, expected.shapes, strict=True):
        if shape != wanted:
            raise _refused(site, f"{module}.{name} has shape {shape}, not {wanted}")


def _check_values(
    site: str, module: str, values: np.ndarray, current: np.ndarray | Stretches, maximum_norm: float | None
) -> None:
    """Walk in chunks so that judging a module needs no second copy of it."""
    squares = 0.0
    for start in range(0, values.size, CHUNK_VALUES):
        chunk = values[start : start + CHUNK_VALUES]
        if not np.isfinite(chunk).all():
            raise _refused(site, f"module {module} holds values that are not finite")
        if maximum_norm is not None:
            change = chunk.astype(np.float64) - current[start : start + CHUNK_VALUES]
            squares += float(change @ change)
    if maximum_norm is not None and math.sqrt(squares) > maximum_norm:
        raise _refused(
            site, f"module {module} moved by {math.sqrt(squares):.4g}; the study allows {maximum_norm:.4g}"
        )


def _refused(site: str, what: str) -> ReplyRefusedError:
    return ReplyRefusedError(
        f"site {site} was left out of the round: {what}",
        where="reply",
        remedy="ask the site which version and study it runs",
    )
