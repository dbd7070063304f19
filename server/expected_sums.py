"""Names and shapes of the sums that a task makes, learnt from a cohort of nobody.

A task's sums do not depend on the data, so what an empty site would send tells what every site must send.
"""

from __future__ import annotations

import torch

from cardionets_core.data.cohort import empty_cohort
from cardionets_core.models import build_module
from cardionets_core.models.presets import PHENOTYPES
from cardionets_core.tasks import ClosedFormTask, Task
from cardionets_core.tasks.shapes import shape_of

Shapes = dict[str, tuple[int, ...]]


class ExpectedSums:
    """What sums the tasks of a study make.

    Args:
        preset: of the study.
    """

    def __init__(self, preset: str) -> None:
        self._preset = preset
        self._shape = shape_of(preset)
        self._nobody = empty_cohort(site="nobody", phenotypes=PHENOTYPES)

    def of_training(self, task: Task) -> Shapes:
        """Sums in a reply to a training order; none for a task that is trained by steps."""
        if not isinstance(task, ClosedFormTask):
            return {}
        sums = task.sums(self._modules(task), self._nobody, shape=self._shape, device=torch.device("cpu"))
        return {name: value.shape for name, value in sums.items()}

    def of_metrics(self, task: Task) -> Shapes:
        """Sums in a reply to an order to measure."""
        sums = task.metric_sums(
            self._modules(task),
            self._nobody,
            split="validation",
            shape=self._shape,
            device=torch.device("cpu"),
            seed=0,
        )
        return {name: value.shape for name, value in sums.items()}

    def _modules(self, task: Task) -> dict[str, torch.nn.Module]:
        # Nobody's features are never computed, so encoders need no memory; heads are small and may be read.
        return {
            name: build_module(name, self._preset, seed=0, device="cpu" if name.endswith("probe") else "meta")
            for name in (*task.trains, *task.reads)
        }
