"""A scenario: which hospitals to make, and which study to run on them.

Comes in: the name of a scenario of this package, or a path. Goes out: a strict, frozen document. Nothing is
made here. A hospital is drawn (``patients`` and so on) or is a folder of real recordings (``wfdb_folder``).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.read import Document, read_document, read_mapping
from cardionets_core.config.study import Scalar, Study
from cardionets_core.errors import CardioNetsError, ConfigError
from server.study_files import SHIPPED, find_study
from simulation.asked import check_study, in_one_line
from simulation.consortium import Consortium, expand
from simulation.events.schedule import Event, LabelFlip, check_events
from simulation.hospitals import DrawnHospital, FolderHospital, Hospital, HospitalPolicy, Prevalence

__all__ = [
    "Comparison",
    "DrawnHospital",
    "FolderHospital",
    "Hospital",
    "HospitalPolicy",
    "Prevalence",
    "Scenario",
    "StrategySetting",
    "load_scenario",
    "named_study",
    "shipped_scenarios",
]

SCENARIOS = Path(__file__).parent / "scenarios"
"""Where the scenarios of this package lie."""

DRAWING_VERSION = 6
"""Raised whenever the same scenario gives other files; it is part of the digest."""


class StrategySetting(Document):
    """How a strategy is set where it is compared with others."""

    options: dict[str, Scalar] = Field(default_factory=dict, description="see docs/strategies.md")
    optimiser: dict[str, Scalar | tuple[float, float]] = Field(
        default_factory=dict,
        description="keys laid over the optimiser of each phase that has one: scaffold needs "
        "{name: sgd, state: reset} and a rate of its own",
    )


class Comparison(Document):
    """Whether the study is also run pooled and by each site alone, and with which seeds.

    ``pooled`` says how the pooled arm gets what all sites compute together: ``steps`` makes as many steps
    as they make in all; ``batch`` makes as many as each of them, with a batch as large as theirs together,
    which is what a federation with one step a round equals (SCIENCE 8.7). ``leave_one_out`` also runs the
    federation without each member in turn, which takes as long as the study for each of them.
    """

    enabled: bool = False
    pooled: Literal["steps", "batch"] = "steps"
    leave_one_out: bool = False
    seeds: tuple[int, ...] = Field(default=(7,), min_length=1)
    strategies: dict[str, StrategySetting] = Field(
        default_factory=dict, description="settings of the strategies that `compare` runs, by name"
    )


class Scenario(Document):
    """A whole scenario."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    consortium: Consortium | None = Field(default=None, description="makes the hospitals from numbers")
    hospitals: tuple[Hospital, ...] = Field(default=(), description="each written out; or see consortium")
    study: Study
    events: tuple[Event, ...] = Field(default=(), description="faults and attackers, by schedule")
    comparison: Comparison = Comparison()

    @field_validator("study", mode="before")
    @classmethod
    def _study_by_name(cls, value: Any) -> Any:
        """A study may be named: then it is one that comes with the server, or a path."""
        try:
            return named_study(value) if isinstance(value, str) else value
        except ConfigError as error:
            # Told with the other faults of the scenario, not in their place.
            raise ValueError(f"{error.what}; {error.remedy}" if error.remedy else error.what) from error

    @field_validator("study")
    @classmethod
    def _study_can_run(cls, value: Study) -> Study:
        try:
            check_study(value)
        except CardioNetsError as error:
            raise ValueError(in_one_line(error)) from error
        return value

    @field_validator("hospitals", mode="before")
    @classmethod
    def _expanded(cls, value: Any, info: ValidationInfo) -> Any:
        """A consortium becomes its hospitals here, so that all that follows knows hospitals alone."""
        consortium = info.data.get("consortium")
        if consortium is None or "seed" not in info.data:
            return value
        if value:
            raise ValueError("give hospitals or consortium, not both")
        return expand(consortium, seed=info.data["seed"])

    @field_validator("hospitals")
    @classmethod
    def _somebody(cls, value: tuple[Hospital, ...], info: ValidationInfo) -> tuple[Hospital, ...]:
        # A consortium with a fault of its own is told as that fault alone.
        if not value and "consortium" in info.data and "seed" in info.data:
            raise ValueError("there is none: give hospitals, or a consortium")
        return value

    @field_validator("hospitals")
    @classmethod
    def _names_differ(cls, value: tuple[Hospital, ...]) -> tuple[Hospital, ...]:
        names = [hospital.site for hospital in value]
        twice = sorted({name for name in names if names.count(name) > 1 or name == "pooled"})
        if twice:
            raise ValueError(f"each hospital needs a name of its own, and not 'pooled': {', '.join(twice)}")
        if value and all(hospital.external for hospital in value):
            raise ValueError("every hospital is external, so nobody would train")
        return value

    @model_validator(mode="after")
    def _events_can_be(self) -> Self:
        check_events(self.events, hospitals=self.hospitals, study=self.study)
        return self

    @property
    def flipped_sites(self) -> frozenset[str]:
        """Sites whose diagnoses tell the opposite."""
        return frozenset(event.site for event in self.events if isinstance(event, LabelFlip))

    @property
    def hospitals_digest(self) -> str:
        """SHA-256 of all that decides the hospitals' files: two scenarios with one digest share them."""
        content = self.model_dump(mode="json", include={"seed", "hospitals"}) | {"version": DRAWING_VERSION}
        content["flipped"] = sorted(self.flipped_sites)
        for hospital in content["hospitals"]:
            if hospital.get("views") == ["4ch"]:  # the files of a hospital that does not say it
                del hospital["views"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def place_of(self, site: str) -> int:
        """Index of the hospital with this name.

        Raises:
            ConfigError: the scenario has no such hospital.
        """
        names = [hospital.site for hospital in self.hospitals]
        if site not in names:
            raise ConfigError(
                f"scenario {self.name!r} has no hospital {site!r}",
                where="hospitals",
                remedy=f"use one of: {', '.join(names)}",
            )
        return names.index(site)


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Read a scenario of this package by name, or any scenario by path.

    Raises:
        ConfigError: no such scenario, or every fault of the document at once.
    """
    return read_document(Scenario, scenario_path(name_or_path))


def named_study(name_or_path: str) -> dict[str, Any]:
    """The document of a study that a scenario names.

    Raises:
        ConfigError: there is none, or it is no mapping.
    """
    try:
        path = find_study(name_or_path)
    except ConfigError as error:
        guess = did_you_mean(name_or_path, (each.stem for each in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"{error.what}{guess}", where="study", remedy=error.remedy) from None
    return read_mapping(path)


def scenario_path(name_or_path: str | Path) -> Path:
    """Where a scenario's document lies.

    Raises:
        ConfigError: no scenario of this package has that name.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return Path(text)
    names = list(shipped_scenarios())
    if text not in names:
        raise ConfigError(
            f"there is no scenario {text!r}{did_you_mean(text, names)}",
            where=str(SCENARIOS),
            remedy=f"use one of: {', '.join(names)}; or give the path of a .yaml file",
        )
    return SCENARIOS / f"{text}.yaml"


def shipped_scenarios() -> dict[str, str]:
    """Names of this package's scenarios and what the first line of each, a comment, says of it."""
    found: dict[str, str] = {}
    for path in sorted(SCENARIOS.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.lstrip("# ") if first.startswith("#") else ""
    return found
