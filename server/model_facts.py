"""What ``model.json`` says of a model beside its weights: who made it, and how good it was on test patients.

Comes in: the study and the history of its rounds. Goes out: JSON-ready facts. Only metrics of all members
together are among them: who uses the model elsewhere need not know how each site fared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.tasks import task_of
from cardionets_core.tasks.drawing import DRAWING_OPTIONS
from cardionets_core.tasks.generate import Generate
from cardionets_core.tasks.short_axis import LONG_AXIS, view_of


def model_facts(study: Study, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``preset``, ``study`` (name and digest), ``drawing`` and ``evaluation``.

    An entry of ``evaluation`` is a phase that measured the test patients. It is ``current`` where no later
    phase trains any of the modules that it measured: only then do its numbers hold for the whole model.
    ``drawing`` is how the last phase ``generate`` of the 4-chamber view drew what was measured, see
    ``DRAWING_OPTIONS``.

    Args:
        study: the study.
        history: one entry a finished round.
    """
    tasks = [task_of(phase, study) for phase in study.phases]
    drawers = [task for task in tasks if isinstance(task, Generate) and view_of(task.options) == LONG_AXIS]
    drawing = {name: (drawers[-1].options if drawers else DRAWING_OPTIONS)[name] for name in DRAWING_OPTIONS}
    evaluation = []
    for entry in history:
        pooled = entry.get("test", {}).get("pooled", {})
        if not pooled:
            continue
        index = entry["phase"]
        modules = {*tasks[index].trains, *tasks[index].reads}
        evaluation.append(
            {
                "phase": index,
                "task": entry["task"],
                "modules": sorted(modules),
                "current": not any(modules & set(later.trains) for later in tasks[index + 1 :]),
                "test": {name: value for name, value in sorted(pooled.items()) if math.isfinite(value)},
            }
        )
    return {
        "preset": study.models,
        "study": {"name": study.name, "digest": study.digest},
        "drawing": drawing,
        "evaluation": evaluation,
    }
