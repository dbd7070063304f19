"""What a private study costs a site, known before it begins (steps 0 and 7 of the walk).

Comes in: a study, and how many training patients of a site serve each of its phases. Goes out: the mechanisms
of every round, the noise with which the whole study keeps its epsilon, or a refusal of what cannot be made
private. The coordinator's plan and the sites' ledgers reckon with this one page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cardionets_core.config.study import Phase, Study
from cardionets_core.errors import ConfigError
from cardionets_core.privacy.accountant import Mechanism, Part, epsilon_of, noise_for
from cardionets_core.tasks.base import ClosedFormTask, GradientTask, MeasureTask, Task
from cardionets_core.training.local import steps_in_round
from cardionets_core.training.private import check_decomposes, sample_rate
from cardionets_core.training.private_sums import check_bounded

SUMS_SCALE = 4.0
"""Noise of released sums over that of a step: they see all patients, and are released only once."""
TELLS_OF_TRAINING = {
    "qfedavg": "sends the exact loss of the training patients",
    "flower/qfedavg": "sends the exact loss of the training patients",
    "ditto": "trains and measures a model of the site's own without noise",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """What one round of a phase costs a site, and how many rounds there are.

    Attributes:
        phase: index of the phase.
        task: of the phase.
        rounds: of the phase.
        patients: that serve it at the site.
        part: of one round.
    """

    phase: int
    task: str
    rounds: int
    patients: int
    part: Part

    @property
    def whole(self) -> Part:
        """All rounds together."""
        return Part(
            sample_rate=self.part.sample_rate, steps=self.rounds * self.part.steps, scale=self.part.scale
        )


def check_private(study: Study, tasks: Sequence[Task]) -> None:
    """Refuse a study under ``dp_sgd`` of which a part cannot be made private; any other study passes.

    Raises:
        ConfigError: names the phase or the strategy, and what to choose instead.
    """
    if study.privacy.mechanism == "none":
        return
    why = TELLS_OF_TRAINING.get(study.aggregation.strategy)
    if why:
        raise ConfigError(
            f"the strategy {study.aggregation.strategy} {why}",
            where="study: aggregation.strategy, with privacy.mechanism: dp_sgd",
            remedy="use fedavg, fedprox, scaffold or a server optimiser such as fedadam",
        )
    for task in tasks:
        if isinstance(task, GradientTask):
            check_decomposes(task)
        elif study.exact_sums_leave:
            # Added in secret: told in docs/privacy.md, and not part of epsilon.
            continue
        elif isinstance(task, MeasureTask):
            raise ConfigError(
                f"task {task.name} sends exact counts that tell of training patients",
                where=f"study: phases: {task.name}, with privacy.mechanism: dp_sgd",
                remedy="leave the phase out",
            )
        elif isinstance(task, ClosedFormTask):
            check_bounded(task)


def phase_costs(study: Study, tasks: Sequence[Task], *, patients: Sequence[int | None]) -> list[PhaseCost]:
    """What each phase costs a site.

    Args:
        study: with ``dp_sgd``.
        tasks: of its phases.
        patients: how many training patients of the site serve each phase; None or 0 where it sits it out.
    """
    found = []
    for index, (task, phase, count) in enumerate(zip(tasks, study.phases, patients, strict=True)):
        if count and (isinstance(task, GradientTask) or not study.exact_sums_leave):
            found.append(
                PhaseCost(
                    phase=index,
                    task=task.name,
                    rounds=phase.rounds,
                    patients=count,
                    part=round_part(task, phase, patients=count),
                )
            )
    return found


def round_part(task: Task, phase: Phase, *, patients: int) -> Part:
    """One round of a phase at a site with so many patients."""
    if not isinstance(task, GradientTask):
        return Part(sample_rate=1.0, steps=1, scale=SUMS_SCALE)
    return Part(
        sample_rate=sample_rate(phase, patients=patients),
        steps=steps_in_round(phase, rows=patients, minimum_batch=task.minimum_batch),
    )


def noise_of(study: Study, costs: Sequence[PhaseCost]) -> float:
    """The noise multiplier of a study at a site: the study's own, or the least that keeps its epsilon.

    Raises:
        ConfigError: no noise keeps it.
    """
    privacy = study.privacy
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    assert privacy.epsilon is not None  # the document asks for one of the two
    try:
        return noise_for(
            [cost.whole for cost in costs],
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            accountant=privacy.accountant,
        )
    except ValueError as error:
        raise ConfigError(
            f"no noise keeps epsilon {privacy.epsilon:g} at delta {privacy.delta:g} in this study",
            where="study: privacy.epsilon",
            remedy="ask for fewer rounds or local steps, or for a larger epsilon",
        ) from error


def epsilon_after(study: Study, costs: Sequence[PhaseCost], *, noise_multiplier: float) -> float:
    """Epsilon of a site that takes part in all of a study."""
    spent: list[Mechanism] = [cost.whole.with_noise(noise_multiplier) for cost in costs]
    return epsilon_of(spent, delta=study.privacy.delta, accountant=study.privacy.accountant)
