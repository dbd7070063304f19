"""The strategy of a study and what it asks of the sites, both fit for its phases, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.models import build_module
from cardionets_core.tasks import GradientTask, Task
from cardionets_core.training.controls import TAKEN, mark, taken
from cardionets_core.training.local_rule import LocalRule, local_rule
from cardionets_core.training.secure_round import check_secure
from strategies import Strategy, make_strategy


def strategy_of(study: Study, tasks: Sequence[Task]) -> Strategy:
    """The strategy of a study, whose tasks ``tasks_of`` has passed.

    Raises:
        ConfigError: the strategy or an option does not exist, a phase's optimiser does not fit it, a pattern
            meets no tensor or module that the study trains, or a round may have fewer sites than it needs.
    """
    rule = local_rule(study)
    strategy = make_strategy(study.aggregation.strategy, study.aggregation.options)
    check_secure(study, tasks, from_mean=strategy.from_mean)
    if study.sites.minimum < strategy.fewest:
        raise ConfigError(
            f"the strategy {strategy.name} needs {strategy.fewest} sites; "
            f"a round may have {study.sites.minimum}",
            where="study: sites.minimum",
            remedy=f"set it to {strategy.fewest} or more, or assume fewer attackers",
        )
    _check_patterns(rule, tasks, preset=study.models)
    return strategy


def taken_marks(history: Iterable[dict[str, Any]], *, phase: int) -> dict[str, np.ndarray]:
    """Marks of the last reply of each site that entered the model in a phase, as an order's ``shared``."""
    last = dict(_entered(history, phase=phase))
    return {TAKEN: taken(mark(site, phase, number) for site, number in last.items())}


def population_of(history: Iterable[dict[str, Any]], *, phase: int, names: Collection[str]) -> int:
    """How many sites serve a phase.

    Args:
        history: of the finished rounds; who entered the model earlier in the phase counts, gone or not, since
            what it left in the strategy's memory stays there.
        phase: index of the phase.
        names: of the sites that could serve in this round, drawn or not.
    """
    return len({*names, *(site for site, _ in _entered(history, phase=phase))})


def _entered(history: Iterable[dict[str, Any]], *, phase: int) -> Iterator[tuple[str, int]]:
    """Site and round of each reply that entered the model in a phase; one without samples did not."""
    for entry in history:
        if entry["phase"] == phase:
            for row in entry["sites"]:
                if row["status"] == "trained" and row["samples"]:
                    yield row["site"], int(entry["round"])


def _check_patterns(rule: LocalRule, tasks: Sequence[Task], *, preset: str) -> None:
    trained = {name for task in tasks if isinstance(task, GradientTask) for name in task.trains}
    for pattern in rule.personal:
        if not LocalRule(personal=(pattern,)).personal_of(trained):
            raise _nothing(pattern, "personal", ", ".join(sorted(trained)))
    tensors = {
        (name, tensor)
        for name in (trained if rule.local else ())
        for tensor, _ in build_module(name, preset, seed=0, device="meta").named_parameters()
    }
    for pattern in rule.local:
        if not any(LocalRule(local=(pattern,)).keeps(name, tensor) for name, tensor in tensors):
            raise _nothing(pattern, "local", "MODULE.TENSOR of " + ", ".join(sorted(trained)))


def _nothing(pattern: str, option: str, known: str) -> ConfigError:
    return ConfigError(
        f"the pattern {pattern!r} meets nothing that the study trains",
        where=f"study: aggregation.options: {option}",
        remedy=f"it is matched against {known}",
    )
