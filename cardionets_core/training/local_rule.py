"""What a study's strategy and wire precision ask of the sites' training, known from the study alone (step 7).

Comes in: a study. Goes out: a ``LocalRule``, the same at the coordinator and at every site. How replies are
combined is the strategies' business and is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from cardionets_core.config.study import Phase, Scalar, Study
from cardionets_core.errors import ConfigError
from cardionets_core.exchange.messages import PERSONAL
from cardionets_core.exchange.precision import Form
from cardionets_core.exchange.tensors import Layout
from cardionets_core.tasks.base import GradientTask, Task

CONTROL = "control"
FIRST_LOSS = "first_loss"
NORMALISER = "normaliser"

SITE_OPTIONS: Mapping[str, Mapping[str, Scalar]] = {
    "fedprox": {"mu": 0.01},
    "fednova": {"mu": 0.0},
    "fedbn": {"local": "*norm*"},
    "ditto": {"lambda": 0.1, "personal": "*"},
    "flower/fedprox": {"proximal_mu": 0.0},
}
"""Options that the sites read, by strategy, with their defaults; the strategies take them from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRule:
    """How a site trains beyond plain local steps.

    Attributes:
        mu: weight of the proximal term ``mu / 2 * |w - w_global|^2`` in the local objective.
        extras: tensors that travel beside each trained module, both ways, laid out as it.
        local: patterns over ``module.tensor``: tensors that stay at the site.
        personal: patterns over modules of which the site trains a copy of its own.
        pull: weight of the proximal term that draws the personal copy to the global model.
        reports: values that a training reply must hold beside its steps, each finite and not negative.
        form: in which trained modules leave the site; other than ``fp32`` they leave as their change.
    """

    mu: float = 0.0
    extras: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    pull: float = 0.0
    reports: tuple[str, ...] = ()
    form: Form = "fp32"

    @property
    def carries(self) -> bool:
        """Whether a site adds what an update has lost to its next one."""
        return self.form == "int8"

    def hears_of_taken(self, task: Task) -> bool:
        """Whether an order to train tells which replies entered the model: the site's state hangs on it."""
        return isinstance(task, GradientTask) and bool(self.extras or self.carries)

    def keeps(self, module: str, tensor: str) -> bool:
        """Whether a tensor stays at the site."""
        return any(fnmatchcase(f"{module}.{tensor}", pattern) for pattern in self.local)

    def kept_parts(self, module: str, layout: Layout) -> list[slice]:
        """Where the tensors that stay at the site lie in a module's flat values."""
        found, start = [], 0
        for tensor, shape in zip(layout.names, layout.shapes, strict=True):
            stop = start + math.prod(shape)
            if self.keeps(module, tensor):
                found.append(slice(start, stop))
            start = stop
        return found

    def personal_of(self, trains: Iterable[str]) -> tuple[str, ...]:
        """Those of some trained modules of which the site has its own."""
        return tuple(m for m in trains if any(fnmatchcase(m, pattern) for pattern in self.personal))

    def extra_names(self, trains: Iterable[str]) -> tuple[str, ...]:
        """Names under which the extra tensors of some trained modules travel."""
        return tuple(f"{module}.{extra}" for module in trains for extra in self.extras)

    def extras_of(self, task: Task) -> tuple[str, ...]:
        """Names of the extra tensors in the orders to train of a phase; a task without steps has none."""
        return self.extra_names(task.trains) if isinstance(task, GradientTask) else ()

    def measures_personal(self, task: Task) -> bool:
        """Whether a site measures its own model beside the one that was sent."""
        return isinstance(task, GradientTask) and bool(self.personal_of(task.trains))

    def metric_shapes(self, task: Task, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the metric sums that a site sends.

        Args:
            task: of the phase.
            shapes: of the sums of one model.
        """
        own = {PERSONAL + name: shape for name, shape in shapes.items()}
        return {**shapes, **(own if self.measures_personal(task) else {})}


def local_rule(study: Study) -> LocalRule:
    """The rule of a study.

    Raises:
        ConfigError: an option that the sites read is wrong, or a phase's optimiser does not fit the strategy.
    """
    return replace(_of_strategy(study), form=study.exchange.precision)


def _of_strategy(study: Study) -> LocalRule:
    name = study.aggregation.strategy
    options = {**SITE_OPTIONS.get(name, {}), **study.aggregation.options}
    match name:
        case "fedprox":
            return LocalRule(mu=_number(options, "mu"))
        case "flower/fedprox":
            return LocalRule(mu=_number(options, "proximal_mu"))
        case "scaffold":
            _check_plain_sgd(study.phases)
            return LocalRule(extras=(CONTROL,))
        case "fednova":
            _check_momentum_begins_anew(study.phases)
            return LocalRule(mu=_number(options, "mu"), reports=(NORMALISER,))
        case "fedbn":
            return LocalRule(local=_patterns(options, "local"))
        case "ditto":
            return LocalRule(personal=_patterns(options, "personal"), pull=_number(options, "lambda"))
        case "qfedavg" | "flower/qfedavg":
            return LocalRule(reports=(FIRST_LOSS,))
    return LocalRule()


def _number(options: Mapping[str, Scalar], name: str) -> float:
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1e12:
        raise ConfigError(
            f"{name} is {value!r}",
            where=f"study: aggregation.options: {name}",
            remedy="it is a number from 0 on",
        )
    return float(value)


def _patterns(options: Mapping[str, Scalar], name: str) -> tuple[str, ...]:
    value = options[name]
    found = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else ("",)
    if not all(found):
        raise ConfigError(
            f"{name} is {value!r}",
            where=f"study: aggregation.options: {name}",
            remedy="it is one or more patterns with commas between them, such as '*norm*'",
        )
    return found


def _check_plain_sgd(phases: Iterable[Phase]) -> None:
    """A control variate is a mean gradient; only steps that add up gradients tell it from the change."""
    for phase in phases:
        spec = phase.optimiser
        if spec is not None and (spec.name != "sgd" or spec.state == "persist"):
            raise ConfigError(
                f"scaffold reads the gradients from the sites' change: phase {phase.task} has {spec.name}, "
                f"state {spec.state}",
                where="study: phases: optimiser",
                remedy="use name: sgd and state: reset, or another strategy",
            )


def _check_momentum_begins_anew(phases: Iterable[Phase]) -> None:
    for phase in phases:
        spec = phase.optimiser
        if spec is not None and spec.name == "sgd" and spec.momentum > 0 and spec.state == "persist":
            raise ConfigError(
                f"fednova counts the momentum of one round; in phase {phase.task} it goes on over rounds",
                where="study: phases: optimiser",
                remedy="set state: reset",
            )
