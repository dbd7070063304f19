"""The schedule of a scenario: which site fails or attacks, how, and in which rounds.

Comes in: the ``events`` part of a scenario. Goes out: checked documents that know when they apply. Nothing
happens here; see ``grid.py`` for what does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.read import Document
from cardionets_core.config.study import SiteName, Study
from simulation.hospitals import DrawnHospital, FolderHospital


class _OfRounds(Document):
    """When an event applies; without ``phase`` in every phase, without ``rounds`` in every round."""

    site: SiteName
    phase: str | int | None = Field(
        default=None, description="name of the phase's task, or its number from 1; every phase without it"
    )
    rounds: tuple[int, int] | None = Field(default=None, description="first and last round of the phase")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.rounds is not None and not 1 <= self.rounds[0] <= self.rounds[1]:
            raise ValueError("rounds: the first from 1, and the last not before it")
        return self

    def applies(self, *, task: str, phase: int, round_number: int) -> bool:
        """Whether it applies in a round.

        Args:
            task: of the phase.
            phase: index of the phase, from 0.
            round_number: from 1.
        """
        if self.phase is not None and self.phase not in (task, phase + 1):
            return False
        return self.rounds is None or self.rounds[0] <= round_number <= self.rounds[1]


class Fault(_OfRounds):
    """A site that does not answer as it should.

    ``offline``: orders do not reach it. ``late``: it does the work, and the reply comes when the order's time
    is up. ``crash``: its process ends in the first attempt of the round. ``slow``: the reply comes after
    ``seconds``, which are really waited.
    """

    kind: Literal["offline", "late", "crash", "slow"]
    seconds: float | None = Field(default=None, gt=0, le=60, description="of slow alone")

    @model_validator(mode="after")
    def _seconds_of_slow(self) -> Self:
        if (self.seconds is not None) != (self.kind == "slow"):
            raise ValueError("seconds belongs to slow, which needs it")
        return self


class Attack(_OfRounds):
    """A site that sends something else than what it trained.

    With u for its honest update of a module: ``sign_flip`` sends - factor u, ``scale`` sends factor u,
    ``noise`` adds noise of factor times u's length to it, ``nan`` puts a value that is no number into it,
    ``replay`` sends again what it sent in its first round of the phase under this schedule. Phases that are
    solved from sums have no updates, and are left alone.
    """

    kind: Literal["sign_flip", "scale", "noise", "nan", "replay"]
    factor: float | None = Field(
        default=None, gt=0, le=1e6, description="1 for sign_flip and noise, 10 for scale"
    )

    @model_validator(mode="after")
    def _factor_of_some(self) -> Self:
        if self.factor is not None and self.kind in ("nan", "replay"):
            raise ValueError(f"{self.kind} has no factor")
        return self

    @property
    def strength(self) -> float:
        """The factor, or the usual one of its kind."""
        usual = 10.0 if self.kind == "scale" else 1.0
        return usual if self.factor is None else self.factor


class LabelFlip(Document):
    """A site whose diagnoses tell the opposite of the truth, in its files and so in every phase."""

    kind: Literal["label_flip"]
    site: SiteName


Event = Annotated[Fault | Attack | LabelFlip, Field(discriminator="kind")]


def check_events(
    events: Sequence[Fault | Attack | LabelFlip],
    *,
    hospitals: Sequence[DrawnHospital | FolderHospital],
    study: Study,
) -> None:
    """Check a schedule against the hospitals and the study.

    Raises:
        ValueError: every event that cannot be, a line each, with its key.
    """
    # Hospitals that have a fault of their own are told as that.
    faults = list(_faults(events, {each.site: each for each in hospitals}, study)) if hospitals else []
    if faults:
        raise ValueError("\n".join(faults))


def _faults(
    events: Sequence[Fault | Attack | LabelFlip],
    sites: dict[str, DrawnHospital | FolderHospital],
    study: Study,
) -> Iterator[str]:
    for number, event in enumerate(events, start=1):
        here = f"events.{number}: {event.kind}"
        hospital = sites.get(event.site)
        if hospital is None:
            guess = did_you_mean(event.site, sites)
            yield f"{here}: there is no hospital {event.site!r}{guess}; there are {', '.join(sites)}"
            continue
        if not isinstance(event, Fault) and hospital.external:
            yield f"{here}: {event.site} is external, so it sends no updates"
        if isinstance(event, LabelFlip):
            if not isinstance(hospital, DrawnHospital) or "labels" in hospital.lacks:
                yield f"{here}: {event.site} has no drawn diagnoses to flip"
            continue
        phases = [
            (index, phase)
            for index, phase in enumerate(study.phases)
            if event.phase in (None, phase.task, index + 1)
        ]
        if not phases:
            named = ", ".join(f"{index + 1} {phase.task}" for index, phase in enumerate(study.phases))
            yield f"{here}: the study has no phase {event.phase!r}; there are {named}"
        elif event.rounds is not None and event.rounds[0] > max(phase.rounds for _, phase in phases):
            yield f"{here}: no such phase has a round {event.rounds[0]}"
        if isinstance(event, Attack) and study.secure_aggregation is not None:
            yield f"{here}: under secure aggregation updates are masked: only label_flip works"
        elif isinstance(event, Attack) and study.exchange.precision != "fp32":
            yield f"{here}: an update is changed before it is rounded; set exchange.precision to fp32"
