"""A hospital of a scenario: a drawn one, whose files are written, or a folder of real recordings.

Documents only: nothing is drawn here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cardionets_core.config.read import Document
from cardionets_core.config.site import Split
from cardionets_core.data.records import DISEASES
from simulation.machines import Cart, Scanner

Lack = Literal["cmr", "labels", "phenotypes"]
"""What a hospital may be without: cines, diagnoses, or the table of measured phenotypes."""
DrawnView = Literal["4ch", "sax"]
"""Views of the heart that can be drawn."""


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
    missing: tuple[Lack, ...] = Field(
        default=(), description="what the hospital does not have: cmr, labels (diagnoses), phenotypes"
    )
    views: tuple[DrawnView, ...] = Field(
        default=("4ch",),
        min_length=1,
        description="views of each visit's cines: the 4-chamber, the short axis",
    )

    @field_validator("views")
    @classmethod
    def _each_view_once(cls, value: tuple[DrawnView, ...]) -> tuple[DrawnView, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each view once")
        return value

    @property
    def drawn_views(self) -> frozenset[DrawnView]:
        """Views of which it has cines; none where it is without cines."""
        return frozenset() if "cmr" in self.lacks else frozenset(self.views)

    @property
    def lacks(self) -> frozenset[str]:
        """What it is without, said or not: without cines there is nothing to measure phenotypes on."""
        without_cmr = self.layout == "mimic_iv_ecg" or "cmr" in self.missing
        return frozenset({*self.missing, *(("cmr", "phenotypes") if without_cmr else ())})

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
