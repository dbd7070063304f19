"""The strategy of a study and what it asks of the sites, both fit for its phases, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.models import build_module
from cardionets_core.tasks import GradientTask, Task
from cardionets_core.training.controls import TAKEN, mark
from cardionets_core.training.local_rule import LocalRule, local_rule
from strategies import Strategy, make_strategy


def strategy_of(study: Study, tasks: Sequence[Task]) -> Strategy:
    """The strategy of a study.

    Raises:
        ConfigError: the strategy or an option does not exist, a phase's optimiser does not fit it, a pattern
            meets no tensor or module that the study trains, or a round may have fewer sites than it needs.
    """
    rule = local_rule(study)
    strategy = make_strategy(study.aggregation.strategy, study.aggregation.options)
    if study.sites.minimum < strategy.fewest:
        raise ConfigError(
            f"the strategy {strategy.name} needs {strategy.fewest} sites; "
            f"a round may have {study.sites.minimum}",
            where="study: sites.minimum",
            remedy=f"set it to {strategy.fewest} or more, or assume fewer attackers",
        )
    _check_patterns(rule, tasks, preset=study.preset)
    return strategy


def taken_marks(history: Iterable[dict[str, Any]], *, phase: int) -> dict[str, np.ndarray]:
    """Marks of the last reply of each site that entered the model in a phase, as an order's ``shared``."""
    last = {
        row["site"]: int(entry["round"])
        for entry in history
        if entry["phase"] == phase
        for row in entry["sites"]
        if row["status"] == "trained"
    }
    marks = sorted(mark(site, phase, number) for site, number in last.items())
    # Never empty: -1 is no mark.
    return {TAKEN: np.array([-1.0, *marks])}


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
