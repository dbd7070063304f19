"""The machines of a simulated hospital: its ECG cart and its MRI scanner, as a scenario describes them.

Documents only: nothing is drawn here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cardionets_core.config.read import Document


class Cart(Document):
    """An ECG cart and the habits of those who use it."""

    rate_hz: int = Field(default=500, ge=200, le=2000)
    mains_hz: int = Field(default=50, ge=50, le=60)
    mains_mv: float = Field(default=0.01, ge=0, le=0.5, description="residue of the mains, amplitude")
    noise_mv: float = Field(default=0.01, ge=0, le=0.5, description="white noise of an electrode, SD")
    muscle_mv: float = Field(default=0.02, ge=0, le=0.5, description="muscle noise at its strongest, SD")
    wander_mv: float = Field(default=0.12, ge=0, le=2.0, description="baseline wander, SD")
    lowpass_hz: float = Field(default=150.0, ge=35, le=400)
    gain: float = Field(default=1.0, gt=0.5, lt=2.0, description="calibration error, 1 is right")
    placement_degrees: float = Field(
        default=8.0, ge=0, le=30, description="electrode placement, SD of a rotation"
    )
    leads: Literal["right", "shuffled", "arms-swapped"] = Field(
        default="right",
        description="shuffled: the export sorts the names of the leads by the alphabet, but not their "
        "signals; arms-swapped: the cables of the two arms are swapped",
    )

    @model_validator(mode="after")
    def _passes_less_than_it_samples(self) -> Cart:
        if self.lowpass_hz >= 0.5 * self.rate_hz:
            raise ValueError("lowpass_hz must lie under half of rate_hz")
        return self


class Scanner(Document):
    """An MRI scanner and its 4-chamber cine protocol."""

    spacing_mm: float = Field(default=1.83, ge=1.0, le=2.6)
    pixels: int = Field(default=112, ge=80, le=256, description="rows and columns of the matrix")
    frames: int = Field(default=50, ge=20, le=60)
    noise: float = Field(default=0.05, ge=0, le=0.5, description="SD of a channel, blood is 1")
    bias: float = Field(default=0.25, ge=0, le=0.9, description="strength of the coil's shading")
    contrast: float = Field(
        default=1.0, ge=0.5, le=1.5, description="blood against myocardium, 1 is 1.5 T bSSFP"
    )
    gain: float = Field(default=420.0, ge=50, le=2000, description="counts of pure blood")

    @model_validator(mode="after")
    def _sees_the_heart(self) -> Scanner:
        if self.pixels * self.spacing_mm < 170.0:
            raise ValueError("the field of view (pixels x spacing_mm) must be at least 170 mm")
        return self
