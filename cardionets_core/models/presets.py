"""The sizes of every model, by preset (SCIENCE section 2): nano for tests, small for a laptop, paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cardionets_core.errors import UnknownNameError

LEADS = 12
PHENOTYPES = 82


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerSize:
    """Width, number of blocks, and heads of each block."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """All sizes of one preset.

    Attributes:
        name: its name.
        ecg_samples: samples of a window at 250 Hz.
        ecg_patch: samples of a patch.
        cine_frames: frames of a cine.
        cine_pixels: rows and columns of a cine.
        cine_patch: rows and columns of a patch.
        ecg_encoder: E.
        cmr_encoder: C.
        ecg_decoder: De.
        cmr_decoder: Dc.
        projection: width of the common space of ECG and cine.
    """

    name: str
    ecg_samples: int
    ecg_patch: int
    cine_frames: int
    cine_pixels: int
    cine_patch: int
    ecg_encoder: TransformerSize
    cmr_encoder: TransformerSize
    ecg_decoder: TransformerSize
    cmr_decoder: TransformerSize
    projection: int

    @property
    def ecg_patches(self) -> int:
        """Patches of one lead."""
        return self.ecg_samples // self.ecg_patch

    @property
    def cine_side(self) -> int:
        """Patches in one row of a cine."""
        return self.cine_pixels // self.cine_patch


class InputSize(NamedTuple):
    """What the encoders of a preset take, as plain numbers."""

    ecg_samples: int
    cine_frames: int
    cine_pixels: int


PRESETS: dict[str, Preset] = {
    "nano": Preset(
        name="nano",
        ecg_samples=750,
        ecg_patch=75,
        cine_frames=8,
        cine_pixels=32,
        cine_patch=8,
        ecg_encoder=TransformerSize(width=64, depth=2, heads=4),
        cmr_encoder=TransformerSize(width=64, depth=2, heads=4),
        ecg_decoder=TransformerSize(width=32, depth=1, heads=2),
        cmr_decoder=TransformerSize(width=32, depth=1, heads=2),
        projection=32,
    ),
    "small": Preset(
        name="small",
        ecg_samples=2250,
        ecg_patch=75,
        cine_frames=24,
        cine_pixels=64,
        cine_patch=8,
        ecg_encoder=TransformerSize(width=256, depth=6, heads=4),
        cmr_encoder=TransformerSize(width=256, depth=6, heads=4),
        ecg_decoder=TransformerSize(width=128, depth=2, heads=2),
        cmr_decoder=TransformerSize(width=128, depth=2, heads=4),
        projection=128,
    ),
    "paper": Preset(
        name="paper",
        ecg_samples=2250,
        ecg_patch=75,
        cine_frames=50,
        cine_pixels=96,
        cine_patch=16,
        ecg_encoder=TransformerSize(width=768, depth=12, heads=12),
        cmr_encoder=TransformerSize(width=768, depth=12, heads=12),
        ecg_decoder=TransformerSize(width=256, depth=4, heads=4),
        cmr_decoder=TransformerSize(width=512, depth=8, heads=16),
        projection=256,
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError(
            f"there is no preset {name!r}", where="study: preset", remedy=f"use one of: {', '.join(PRESETS)}"
        )
    return PRESETS[name]


def input_shape(preset: str) -> InputSize:
    """Samples of a window, frames of a cine, pixels of its side.

    Raises:
        UnknownNameError: there is no such preset.
    """
    sizes = get_preset(preset)
    return InputSize(sizes.ecg_samples, sizes.cine_frames, sizes.cine_pixels)
