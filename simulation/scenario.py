"""A scenario: which hospitals to make, and which study to run on them.

Comes in: the name of a scenario of this package, or a path. Goes out: a strict, frozen document. Nothing is
made here. A hospital is drawn (``patients`` and so on) or is a folder of real recordings (``wfdb_folder``).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cardionets_core.config.read import Document, read_document, read_mapping
from cardionets_core.config.site import Split
from cardionets_core.config.study import Study
from cardionets_core.data.records import DISEASES
from cardionets_core.errors import ConfigError
from server.study_files import find_study
from simulation.machines import Cart, Scanner

SCENARIOS = Path(__file__).parent / "scenarios"
"""Where the scenarios of this package lie."""

DRAWING_VERSION = 5
"""Raised whenever the same scenario gives other files; it is part of the digest."""


class HospitalPolicy(Document):
    """Numbers of the policy that the hospital's ``site.yaml`` gets."""

    minimum_patients: int = Field(default=20, ge=5)
    minimum_cell: int = Field(default=5, ge=1)
    maximum_epsilon: float = Field(default=100.0, gt=0, description="of all private studies together")


class Prevalence(Document):
    """Share of the patients with each disease."""

    cad: float = Field(default=0.0, ge=0, le=1)
    cm: float = Field(default=0.0, ge=0, le=1)
    hf: float = Field(default=0.0, ge=0, le=1)
    pc: float = Field(default=0.0, ge=0, le=1)
    ph: float = Field(default=0.0, ge=0, le=1)

    def as_mapping(self) -> dict[str, float]:
        """By name of disease."""
        return {name: float(getattr(self, name)) for name in DISEASES}


class _Hospital(Document):
    site: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    split: Split = Split()
    policy: HospitalPolicy = HospitalPolicy()
    external: bool = Field(default=False, description="models are measured here and never trained")

    @model_validator(mode="after")
    def _somebody_to_train_on(self) -> Self:
        if not self.external and self.split.validation + self.split.test >= 1:
            raise ValueError("split: validation and test leave nobody to train on")
        return self


class DrawnHospital(_Hospital):
    """A hospital whose patients are drawn and written in the files of ``layout``."""

    layout: Literal["uk_biobank", "mimic_iv_ecg", "local_wfdb", "local_csv"]
    patients: int = Field(ge=1, le=200_000)
    repeat_share: float = Field(default=0.25, ge=0, le=1, description="share of people who came again")
    mean_age: float = Field(default=62.0, ge=18, le=90)
    prevalence: Prevalence = Prevalence()
    cart: Cart = Cart()
    scanner: Scanner = Scanner()

    @model_validator(mode="after")
    def _rate_fits_the_layout(self) -> DrawnHospital:
        if self.layout in ("uk_biobank", "mimic_iv_ecg") and self.cart.rate_hz != 500:
            raise ValueError(f"the files of {self.layout} are recorded at 500 Hz: set cart.rate_hz to 500")
        return self


class FolderHospital(_Hospital):
    """A hospital that is a folder of real WFDB recordings, each a patient of its own; ECG only."""

    layout: Literal["wfdb_folder"]
    folder: Path = Field(description="relative to the folder given as --data")

    @field_validator("folder")
    @classmethod
    def _stays_inside(cls, value: Path) -> Path:
        if value.is_absolute() or ".." in value.parts:
            raise ValueError("give a path inside the --data folder")
        return value


Hospital = Annotated[DrawnHospital | FolderHospital, Field(discriminator="layout")]


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
    seeds: tuple[int, ...] = (7,)


class Scenario(Document):
    """A whole scenario."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    hospitals: tuple[Hospital, ...] = Field(min_length=1)
    study: Study
    comparison: Comparison = Comparison()

    @field_validator("study", mode="before")
    @classmethod
    def _study_by_name(cls, value: Any) -> Any:
        """A study may be named: then it is one that comes with the server, or a path."""
        return read_mapping(find_study(value)) if isinstance(value, str) else value

    @field_validator("hospitals")
    @classmethod
    def _names_differ(cls, value: tuple[Hospital, ...]) -> tuple[Hospital, ...]:
        names = [hospital.site for hospital in value]
        twice = sorted({name for name in names if names.count(name) > 1 or name == "pooled"})
        if twice:
            raise ValueError(f"each hospital needs a name of its own, and not 'pooled': {', '.join(twice)}")
        if all(hospital.external for hospital in value):
            raise ValueError("every hospital is external, so nobody would train")
        return value

    @property
    def hospitals_digest(self) -> str:
        """SHA-256 of all that decides the hospitals' files: two scenarios with one digest share them."""
        content = self.model_dump(mode="json", include={"seed", "hospitals"}) | {"version": DRAWING_VERSION}
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
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return read_document(Scenario, Path(text))
    names = list(shipped_scenarios())
    if text not in names:
        raise ConfigError(
            f"there is no scenario {text!r}",
            where=str(SCENARIOS),
            remedy=f"use one of: {', '.join(names)}; or give the path of a .yaml file",
        )
    return read_document(Scenario, SCENARIOS / f"{text}.yaml")


def shipped_scenarios() -> dict[str, str]:
    """Names of this package's scenarios and what the first line of each, a comment, says of it."""
    found: dict[str, str] = {}
    for path in sorted(SCENARIOS.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.lstrip("# ") if first.startswith("#") else ""
    return found
