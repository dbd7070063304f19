"""Steps of DP-SGD: a secret sample of the patients, clipped gradients, noise (step 7 of the walk).

Abadi et al. 2016 (CCS), with the patient as the unit: each step samples every patient with the same chance,
takes one recording of each who was drawn, clips the gradient of each, and adds noise to the sum. The sum is
divided by the expected number of patients, never by the number that was drawn. What leaves the site after
that is post-processing. Comes in: a noise multiplier that somebody else has accounted for. Goes out:
gradients. Nothing here reserves or counts privacy.

Legend: B rows of a step, one a patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch

from cardionets_core.config.study import Phase
from cardionets_core.errors import ConfigError
from cardionets_core.privacy.noise import SecretRandomness
from cardionets_core.privacy.per_sample import FIRST_ROWS, ClippedSums, Mode, choose_mode
from cardionets_core.tasks.base import Role, SiteView, Task
from cardionets_core.training.gradients import Scene, Seen
from cardionets_core.training.plan import Step, ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSteps:
    """How the steps of a round are made private.

    Attributes:
        noise_multiplier: the noise's deviation over the clip; 0 adds none, for tests.
        clip_norm: largest norm of a patient's gradient.
        randomness: draws patients, recordings, windows and noise.
        mode: how gradients of single patients are taken; chosen by the modules' layers by default.
    """

    noise_multiplier: float
    clip_norm: float
    randomness: SecretRandomness
    mode: Mode | None = None


def sample_rate(phase: Phase, *, patients: int) -> float:
    """A patient's chance to be in a step: ``batch_size`` patients are expected, or all there are.

    Args:
        phase: gives the batch size.
        patients: of the site that serve the phase; at least 1.
    """
    return min(1.0, phase.batch_size / patients)


class PrivateGradients:
    """The noised mean of clipped gradients of the patients who were drawn for a step.

    Args:
        scene: the round.
        private: how it is made private.

    Raises:
        ConfigError: the task's loss couples the rows of a batch, or a module mixes them.
    """

    def __init__(self, scene: Scene, private: PrivateSteps) -> None:
        check_decomposes(scene.task)
        self._scene = scene
        self._private = private
        self._exits = ExitStack()
        rows = scene.site.rows(scene.role.row_needs, "train")
        self._expected = float(min(scene.phase.batch_size, scene.site.cohort.patients(rows)))
        trained = {name: scene.modules[name] for name in scene.role.trains}
        self._sums = ClippedSums(
            trained,
            clip_norm=private.clip_norm,
            mode=private.mode or choose_mode(trained, compiled=scene.numerics.compile),
            first_rows=min(FIRST_ROWS, -(-scene.phase.batch_size // scene.phase.accumulate)),
        )

    @property
    def unusable(self) -> int:
        """Draws whose gradient was not finite; they added nothing."""
        return self._sums.unusable

    def __enter__(self) -> PrivateGradients:
        scene = self._scene
        plan = poisson_steps(
            scene.task, scene.site, role=scene.role, phase=scene.phase, randomness=self._private.randomness
        )
        # Made when they are asked for: one key stream, drawn from in one order.
        self._batches = self._exits.enter_context(closing(ahead(plan, count=0, device=scene.site.device)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def take(self, step: int) -> Seen:
        """See ``Gradients.take``. The loss is the mean over the draws, for the site's own eyes."""
        scene = self._scene
        chosen = next(self._batches)
        batch = chosen.batch.to(scene.site.device)
        total = 0.0

        def loss_of(begin: int, end: int) -> torch.Tensor:
            nonlocal total
            with scene.numerics.autocast(scene.site.device):
                part = batch.run(begin, end)
                found = scene.task.loss(scene.modules, part, scene.state, generator=scene.generator)
            assert found.per_sample_B is not None  # the task decomposes
            total += float(found.per_sample_B.detach().sum())
            return found.per_sample_B

        self._sums.add(loss_of, rows=batch.size)
        sums = self._sums.take()
        deviation = self._private.noise_multiplier * self._private.clip_norm
        self._private.randomness.add_normal(sums, deviation=deviation)
        for parameter, value in zip(self._sums.parameters, sums, strict=True):
            parameter.grad = value.div_(self._expected)
        return Seen(rows=chosen.rows, loss=total / max(batch.size, 1))


def poisson_steps(
    task: Task, site: SiteView, *, role: Role, phase: Phase, randomness: SecretRandomness
) -> Iterator[Step]:
    """Steps without end: each patient is in each by an own draw, with one recording of all that serve.

    Args:
        task: gives what a batch loads.
        site: whose training patients; there is at least one.
        role: says what a row must hold.
        phase: gives the expected number of patients.
        randomness: draws all.

    Yields:
        Steps of any number of rows, from none on.
    """
    rows = site.rows(role.row_needs, "train")
    keys = role.row_needs if task.batch_keys is None else task.batch_keys
    patients, of_patient = np.unique(site.cohort.row_patient[rows], return_inverse=True)
    order = np.argsort(of_patient, kind="stable")
    counts = np.bincount(of_patient, minlength=len(patients))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rate = sample_rate(phase, patients=len(patients))
    windows = randomness.generator()
    while True:
        drawn = np.flatnonzero(randomness.uniform(len(patients)) < rate)
        place = (randomness.uniform(len(drawn)) * counts[drawn]).astype(np.int64)
        chosen = rows[order[first[drawn] + np.minimum(place, counts[drawn] - 1)]]
        batch = site.cohort.batch(chosen, keys=keys, shape=site.shape, generator=windows)
        yield Step(rows=chosen, batch=batch)


def check_decomposes(task: Task) -> None:
    """Refuse a task whose loss couples the rows of a batch: it has no gradient of one patient.

    Raises:
        ConfigError: names the task, and what to choose instead.
    """
    if not task.decomposes:
        raise ConfigError(
            f"the loss of task {task.name} couples the patients of a batch: what one of them changes in it "
            "has no bound, so clipping bounds nothing",
            where=f"study: phases: {task.name}, with privacy.mechanism: dp_sgd",
            remedy=task.private_remedy or "leave the phase out, or train without dp_sgd",
        )
