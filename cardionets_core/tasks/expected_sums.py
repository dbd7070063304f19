"""Names and shapes of the sums that a task makes, learnt from a cohort of nobody.

A task's sums do not depend on the data, so what an empty site would send tells what every site must send.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch

from cardionets_core.data.cohort import empty_cohort
from cardionets_core.models import build_module
from cardionets_core.models.presets import PHENOTYPES
from cardionets_core.tasks import ClosedFormTask, GradientTask, SiteView, Task
from cardionets_core.tasks.base import Scalar
from cardionets_core.tasks.shapes import shape_of

Shapes = dict[str, tuple[int, ...]]
MOST_REAL_VALUES = 500_000
SUM_BYTES = 8
"""A sum is a float64."""


class ExpectedSums:
    """What sums the tasks of a study make.

    Args:
        preset: of the study.
    """

    def __init__(self, preset: str) -> None:
        self._preset = preset
        # Each reply of a round asks for the same.
        self._known: dict[tuple[str, str, tuple[tuple[str, Scalar], ...]], Shapes] = {}
        self._nobody = SiteView(
            cohort=empty_cohort(site="nobody", phenotypes=PHENOTYPES),
            shape=shape_of(preset),
            device=torch.device("cpu"),
        )

    def of_training(self, task: Task) -> Shapes:
        """Sums in a reply to a training order; none for a task that is trained by steps."""
        if not isinstance(task, ClosedFormTask):
            return {}
        return self._once("training", task, lambda: task.sums(self._modules(task), self._nobody))

    def of_shared(self, task: Task) -> Shapes:
        """Sums that a site sends before a round's steps and gets back added; none where nothing is shared."""
        return self.of_statistics(task) if isinstance(task, GradientTask) and task.shares else {}

    def of_statistics(self, task: GradientTask) -> Shapes:
        """Sums in a reply to an order for statistics."""
        return self._once("statistics", task, lambda: task.statistics(self._modules(task), ()))

    def of_metrics(self, task: Task) -> Shapes:
        """Sums in a reply to an order to measure."""
        return self._once(
            "metrics",
            task,
            lambda: task.metric_sums(self._modules(task), self._nobody, split="validation", seed=0),
        )

    def _once(self, kind: str, task: Task, make: Callable[[], dict[str, np.ndarray]]) -> Shapes:
        key = kind, task.name, tuple(sorted(task.options.items()))
        if key not in self._known:
            self._known[key] = {name: value.shape for name, value in make().items()}
        return self._known[key]

    def _modules(self, task: Task) -> dict[str, torch.nn.Module]:
        # Nobody's features are never computed, so large modules need no memory; small ones may be read.
        found = {}
        for name in (*task.trains, *task.reads):
            module = build_module(name, self._preset, seed=0, device="meta")
            if sum(parameter.numel() for parameter in module.parameters()) <= MOST_REAL_VALUES:
                module = build_module(name, self._preset, seed=0)
            found[name] = module
        return found


@functools.lru_cache(maxsize=8)
def expected_sums(preset: str) -> ExpectedSums:
    """Those of a preset, learnt once a process."""
    return ExpectedSums(preset)


def bytes_of(shapes: Shapes) -> int:
    """Bytes of sums on the wire."""
    return SUM_BYTES * sum(math.prod(shape) for shape in shapes.values())
