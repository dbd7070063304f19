"""Where the gradients of a round's steps come from (step 7 of the walk).

Comes in: which step it is. Goes out: gradients in the parameters, and what the step saw. ``PlainGradients``
walks the epochs of a site; ``training.private`` has the other kind. The steps themselves, with schedule,
optimiser and what a strategy adds, are ``training.local``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.errors import NonFiniteLossError
from cardionets_core.tasks.base import GradientTask, Role, SiteView
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.plan import ahead, plan_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one step saw.

    Attributes:
        rows: of the site's cohort.
        loss: mean over the rows.
        parts: means of the task's named values.
    """

    rows: np.ndarray
    loss: float
    parts: Mapping[str, float] = field(default_factory=dict)


class Gradients(Protocol):
    """Gradients of one step after the other; open while the steps last."""

    def __enter__(self) -> Gradients:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; what was made ahead is dropped."""

    def take(self, step: int) -> Seen:
        """Put the gradients of a step into the parameters, which have none.

        Args:
            step: from 0.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What the gradients of a round are taken of.

    Attributes:
        task: has the loss.
        modules: prepared, on the site's device.
        site: the site.
        role: how it takes part.
        phase: of the study.
        round_index: from 1.
        seed: of the round at this site.
        numerics: precision, prefetch.
        state: of the task, for this round.
        generator: a CPU generator for masks and noise of the loss.
    """

    task: GradientTask
    modules: Mapping[str, nn.Module]
    site: SiteView
    role: Role
    phase: Phase
    round_index: int
    seed: int
    numerics: Numerics
    state: object
    generator: torch.Generator


class PlainGradients:
    """The gradient of the mean loss of a batch, in up to ``accumulate`` parts."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._exits = ExitStack()

    def __enter__(self) -> PlainGradients:
        scene = self._scene
        plan = plan_steps(
            scene.task,
            scene.site,
            role=scene.role,
            phase=scene.phase,
            round_index=scene.round_index,
            seed=scene.seed,
        )
        made = ahead(plan, count=scene.numerics.prefetch, device=scene.site.device)
        self._batches = self._exits.enter_context(closing(made))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def take(self, step: int) -> Seen:
        """See ``Gradients.take``.

        Raises:
            NonFiniteLossError: a loss is not finite.
        """
        scene = self._scene
        chosen = next(self._batches)
        batch = chosen.batch.to(scene.site.device)
        loss, parts = 0.0, dict[str, float]()
        for part in batch.parts(scene.phase.accumulate):
            share = part.size / batch.size
            with scene.numerics.autocast(scene.site.device):
                found = scene.task.loss(scene.modules, part, scene.state, generator=scene.generator)
            value = float(found.total.detach())
            if not math.isfinite(value):
                raise non_finite("the loss", scene.task, round_index=scene.round_index, step=step)
            (found.total * share).backward()
            loss += share * value
            parts = {name: parts.get(name, 0.0) + share * each for name, each in found.parts.items()}
        return Seen(rows=chosen.rows, loss=loss, parts=parts)


def non_finite(what: str, task: GradientTask, *, round_index: int, step: int) -> NonFiniteLossError:
    """The error of a loss or weight that is not finite, at a step counted from 0."""
    return NonFiniteLossError(
        f"{what} of task {task.name} is not finite",
        where=f"round {round_index}, step {step + 1}",
        remedy="lower the learning rate, lengthen the warm-up, or set clip_norm",
    )
