"""What a task is: modules it trains, modules it reads, what it needs of a row, a loss or sums, and metrics.

Step 6 of the walk. Two kinds: a ``GradientTask`` is trained by local steps, a ``ClosedFormTask`` is solved at
the server from sums of the sites. The trainer and the wire know tasks only through these classes.

Legend: B rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort, Split
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError, OrderRefusedError

Scalar = bool | int | float | str
Modules = Mapping[str, nn.Module]
Sums = dict[str, np.ndarray]
EVALUATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoss:
    """The loss of one batch.

    Attributes:
        total: scalar with gradient.
        per_sample_B: float32 [B] where the loss decomposes; its mean is ``total``. None elsewhere.
        parts: named values for the screen.
    """

    total: torch.Tensor
    per_sample_B: torch.Tensor | None = None
    parts: dict[str, float] = field(default_factory=dict)


class Task(ABC):
    """Common to all tasks.

    Class attributes:
        name: as in the study.
        trains: modules that change.
        reads: modules that are frozen; they stay in eval mode, without gradients.
        needs: what a row must hold: any of ``ecg``, ``cine``, ``phenotypes``.
        decomposes: the batch loss is the mean of terms of one row each, so DP-SGD may be applied.
        minimum_batch: smaller batches are skipped and not counted.
        primary: name of the metric that stands for the task.
        higher_is_better: its direction.
        defaults: every option with its default; an option's value has the type of its default.

    Args:
        options: some of ``defaults``, changed.

    Raises:
        ConfigError: an option is unknown or of the wrong type.
    """

    name: ClassVar[str]
    trains: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[str]]
    decomposes: ClassVar[bool]
    minimum_batch: ClassVar[int] = 1
    primary: ClassVar[str]
    higher_is_better: ClassVar[bool]
    defaults: ClassVar[dict[str, Scalar]] = {}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        where = f"study: phases: options of task {self.name}"
        known = ", ".join(sorted(self.defaults)) or "none"
        unknown = sorted(set(options) - set(self.defaults))
        if unknown:
            raise ConfigError(
                f"unknown option {', '.join(unknown)}", where=where, remedy=f"the options are: {known}"
            )
        wrong = sorted(name for name, value in options.items() if not _fits(value, self.defaults[name]))
        if wrong:
            kinds = ", ".join(f"{name} is a {type(self.defaults[name]).__name__}" for name in wrong)
            raise ConfigError(f"option of the wrong type: {', '.join(wrong)}", where=where, remedy=kinds)
        self.options: dict[str, Scalar] = {**self.defaults, **options}

    def prepare_modules(self, modules: Modules) -> None:
        """Set modes and gradients: trained modules in train(), read modules frozen in eval().

        Raises:
            OrderRefusedError: a module of the task is absent.
        """
        missing = sorted({*self.trains, *self.reads} - set(modules))
        if missing:
            raise OrderRefusedError(
                f"modules are absent: {', '.join(missing)}", where=f"task {self.name}", remedy="send them"
            )
        for name in (*self.trains, *self.reads):
            module = modules[name]
            module.train(name in self.trains).requires_grad_(name in self.trains)
            module.zero_grad(set_to_none=True)

    @abstractmethod
    def metric_sums(
        self,
        modules: Modules,
        cohort: Cohort,
        *,
        split: Split,
        shape: InputShape,
        device: torch.device,
        seed: int,
    ) -> Sums:
        """Sums over rows or patients of a split; they may be added over sites.

        Returns:
            float64 arrays of at least one axis; always with ``n_rows`` and ``n_patients`` (shape (1,)). The
            names and shapes do not depend on the data. A split without rows gives zeros.
        """

    @abstractmethod
    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Finite metrics of (added) sums; a metric that is undefined for them is absent."""

    def _number(self, option: str) -> float:
        return float(self.options[option])


class GradientTask(Task):
    """A task with a loss."""

    def open_round(
        self, modules: Modules, cohort: Cohort, *, shape: InputShape, device: torch.device
    ) -> object:
        """What the loss needs of the whole site for one round, or None. Modules are prepared already."""
        return None

    @abstractmethod
    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Loss of one batch.

        Args:
            modules: prepared modules.
            batch: at least one row, with the keys of ``needs``, on the modules' device.
            state: from ``open_round``.
            generator: a CPU generator for masks and noise.
        """


class ClosedFormTask(Task):
    """A task whose trained module follows from sums over rows: one exchange, no steps."""

    @abstractmethod
    def sums(self, modules: Modules, cohort: Cohort, *, shape: InputShape, device: torch.device) -> Sums:
        """What the site adds to the solution: float64 arrays that may be added over sites."""

    @abstractmethod
    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """State of the trained module from added sums: float32 arrays by parameter name."""


def count_sums(cohort: Cohort, rows: np.ndarray) -> Sums:
    """``n_rows`` and ``n_patients`` of some rows."""
    return {"n_rows": one(len(rows)), "n_patients": one(cohort.patients(rows))}


def one(value: float) -> np.ndarray:
    """A number as a float64 array of shape (1,)."""
    return np.array([value], dtype=np.float64)


def _fits(value: Scalar, default: Scalar) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))
