"""What a task is: modules it trains, modules it reads, what it needs of a row, a loss or sums, and metrics.

Step 6 of the walk. Two kinds: a ``GradientTask`` is trained by local steps, a ``ClosedFormTask`` is solved at
the server from sums of the sites. The trainer and the wire know tasks only through these classes.

Legend: B rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort, Split
from cardionets_core.errors import ConfigError, OrderRefusedError
from cardionets_core.privacy.counts import Counts
from cardionets_core.tasks.site_view import EVALUATION_BATCH, SiteView

__all__ = [
    "EVALUATION_BATCH",
    "ClosedFormTask",
    "GradientTask",
    "MeasureTask",
    "Modules",
    "Role",
    "Scalar",
    "SiteView",
    "Sums",
    "Task",
    "TaskLoss",
    "count_sums",
    "one",
]

Scalar = bool | int | float | str
Modules = Mapping[str, nn.Module]
Sums = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One way of taking part in a phase; a site takes the first that its data can serve.

    Attributes:
        name: kebab-case.
        needs: what a row must hold: see ``Task``.
        takes: what a training row must hold at least, at a site that serves the role: less than ``needs``
            where rows that lack a part still give what they have. Empty where it is ``needs``.
        trains: modules that change here; those of the phase that are not named stay as they came.
        weight: share of its samples that counts in the mean.
    """

    name: str
    needs: frozenset[str]
    trains: tuple[str, ...]
    weight: float = 1.0
    takes: frozenset[str] = frozenset()

    @property
    def row_needs(self) -> frozenset[str]:
        """What a training row must hold."""
        return self.takes or self.needs


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
    """Common to all tasks. What depends on the options is set anew by the constructor.

    Attributes:
        name: as in the study.
        trains: modules that change.
        reads: modules that are frozen; they stay in eval mode, without gradients.
        needs: what a row must hold: any of ``ecg``, ``cine`` (of the 4-chamber view), ``phenotypes``,
            ``labels``, and ``sax`` (a cine of the short axis), ``cmr`` (a cine of either view).
        decomposes: the batch loss is the mean of terms of one row each, so DP-SGD may be applied.
        private_remedy: what to choose where a loss that couples its rows is refused under differential
            privacy.
        minimum_batch: smaller batches are skipped and not counted.
        batch_keys: what a training batch loads; None loads what the role needs. A loss that looks values up
            by ``row_B`` needs none of them.
        primary: name of the metric that stands for the task.
        higher_is_better: its direction.
        defaults: every option with its default; an option's value has the type of its default.
        choices: options that are words, with the words.
        counts: which of its sums count people or records, and how; the gate judges and rounds them by it.

    Args:
        options: some of ``defaults``, changed.

    Raises:
        ConfigError: an option is unknown or of the wrong type.
    """

    name: ClassVar[str]
    trains: tuple[str, ...]
    reads: tuple[str, ...] = ()
    needs: frozenset[str]
    decomposes: bool
    private_remedy: ClassVar[str] = ""
    minimum_batch: int = 1
    batch_keys: frozenset[str] | None = None
    primary: str
    higher_is_better: bool
    defaults: ClassVar[dict[str, Scalar]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    counts: ClassVar[Counts] = {}

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        self.parts = parts
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
        for name, words in self.choices.items():
            if self.options[name] not in words:
                raise ConfigError(
                    f"{name} is {self.options[name]!r}", where=where, remedy=f"use one of: {', '.join(words)}"
                )

    @property
    def roles(self) -> tuple[Role, ...]:
        """The ways of taking part, the fullest first."""
        return (Role(name="full", needs=self.needs, trains=self.trains),)

    def prepare_modules(self, modules: Modules, role: Role | None = None) -> None:
        """Set modes and gradients: what the role trains in train(), all else frozen in eval().

        Args:
            modules: by name, at least those that the task trains and reads.
            role: the site's; the fullest by default.

        Raises:
            OrderRefusedError: a module of the task is absent.
        """
        missing = sorted({*self.trains, *self.reads} - set(modules))
        if missing:
            raise OrderRefusedError(
                f"modules are absent: {', '.join(missing)}", where=f"task {self.name}", remedy="send them"
            )
        trained = (role or self.roles[0]).trains
        for name in (*self.trains, *self.reads):
            module = modules[name]
            module.train(name in trained).requires_grad_(name in trained)
            module.zero_grad(set_to_none=True)

    @abstractmethod
    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums over rows or patients of a split; they may be added over sites.

        Returns:
            float64 arrays of at least one axis; always with ``n_rows`` and ``n_patients`` (shape (1,)). The
            names and shapes do not depend on the data. A split without rows gives zeros.
        """

    @abstractmethod
    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Finite metrics of (added) sums; a metric that is undefined for them is absent."""

    def replicates(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """Bootstrap replicates of the primary metric, float64 [M]; empty where the task makes none.

        Two models that were measured on the same rows with the same seed have the same draws of people, so
        their replicates are paired.
        """
        return np.zeros(0)

    def _number(self, option: str) -> float:
        return float(self.options[option])


class GradientTask(Task):
    """A task with a loss.

    Attributes:
        shares: before each round's steps the sites' ``statistics`` are added and handed to all of them.
    """

    shares: bool = False

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> object:
        """What the loss needs of the whole site for one round, or None. Modules are prepared already."""
        return None

    def rows_behind(self, module: str, site: SiteView, rows: np.ndarray) -> np.ndarray:
        """Those of some training rows that give a gradient of a trained module: all, by default."""
        return rows

    @abstractmethod
    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Loss of one batch.

        Args:
            modules: prepared modules.
            batch: at least one row, with the keys of the role's ``needs`` or of ``batch_keys``, on the
                modules' device.
            state: from ``open_round``.
            generator: a CPU generator for masks and noise.
        """

    def statistics(self, modules: Modules, batches: Iterable[Batch], *, smallest_cell: int = 1) -> Sums:
        """What is added over the sites before a round's steps, where the task ``shares``.

        Args:
            modules: prepared modules.
            batches: the first epoch of this round, with the windows that the steps will see; may be empty.
            smallest_cell: fewest people in any group that a sum tells of.

        Returns:
            float64 arrays whose names and shapes do not depend on the data.
        """
        return {}


class ClosedFormTask(Task):
    """A task whose trained module follows from sums over rows: one exchange, no steps.

    Attributes:
        private_bounds: sum to the largest L2 norm that one patient adds to it under differential privacy,
            told from no data; empty where the noise that this asks for would leave nothing of the sums.
    """

    private_bounds: ClassVar[Mapping[str, float]] = {}

    def repair(self, sums: Sums) -> Sums:
        """Noised sums made possible again, such as counts that are not below 0; from them alone."""
        return sums

    @abstractmethod
    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """What the site adds to the solution: float64 arrays that may be added over sites."""

    @abstractmethod
    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """State of the trained module from added sums: float32 arrays by parameter name."""


class MeasureTask(Task):
    """A task that trains nothing: its round is one measurement on the test patients."""

    trains = ()
    decomposes = False


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
