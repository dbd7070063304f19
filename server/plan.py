"""What a study will do, before anything is sent."""

from __future__ import annotations

from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask
from cardionets_core.training.local_rule import local_rule
from server.aggregation import strategy_of
from server.phase_order import tasks_of

SCHEMA_VERSION = 1


def plan_of(study: Study) -> dict[str, Any]:
    """The phases of a study with their modules and payload.

    Raises:
        ConfigError: the study names a task, strategy, preset or option that does not exist.
    """
    tasks = tasks_of(study)
    strategy_of(study, tasks)
    # What a strategy sends beside each module is as large as the module, both ways.
    times = 1 + len(local_rule(study).extras)
    phases = []
    for task, phase in zip(tasks, study.phases, strict=True):
        sizes = {name: _parameters(name, study.preset) for name in (*task.trains, *task.reads)}
        trained = 4 * sum(sizes[name] for name in task.trains)
        phases.append(
            {
                "task": task.name,
                "rounds": phase.rounds,
                "trains": list(task.trains),
                "reads": list(task.reads),
                "needs": sorted(task.needs),
                "decomposes": task.decomposes,
                # A closed-form task sends sums back instead of the module; they are not counted here.
                "bytes_per_round_and_site": trained
                if isinstance(task, ClosedFormTask)
                else 2 * times * trained,
                "frozen_bytes_once_per_site": 4 * sum(sizes[name] for name in task.reads),
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "study": study.name,
        "study_digest": study.digest,
        "preset": study.preset,
        "phases": phases,
    }


def _parameters(name: str, preset: str) -> int:
    module = build_module(name, preset, seed=0, device="meta")
    return sum(parameter.numel() for parameter in module.parameters())
