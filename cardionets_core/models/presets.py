"""The sizes of every model, by preset (SCIENCE section 2): nano for tests, small for a laptop, paper."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.generation import LATER, Parts, models_name, split_name
from cardionets_core.errors import UnknownNameError
from cardionets_core.models.earlier_sizes import EARLIER_SIZES
from cardionets_core.models.sizes import (
    DiffusionSize,
    EarlierSizes,
    GeneratorSize,
    SamplingSize,
    SwinSize,
    TokenizerSize,
    TransformerSize,
)

LEADS = 12
PHENOTYPES = 82
DISEASES = 5
SUBTYPES = 3
COVARIATES = 4
"""Numbers that tell of age and sex, to an ECG encoder that takes them."""
STORED_RATE_HZ = 250
"""Of recordings as the cache keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """All sizes of one preset.

    Attributes:
        name: its name, that of its parts included (``models_name``).
        ecg_samples: samples of a window, at ``ecg_rate_hz``.
        ecg_patch: samples of a patch.
        cine_frames: frames of a cine.
        cine_pixels: rows and columns of a cine.
        cine_patch: rows and columns of a patch.
        ecg_encoder: E.
        cmr_encoder: C.
        ecg_decoder: De.
        cmr_decoder: Dc.
        projection: width of the common space of ECG and cine.
        phenotype_hidden: widths of the hidden layers of the phenotype head Hr.
        tokenizer: V.
        generator: G.
        diffusion: DH.
        sampling: of the generator.
        fusion: F.
        sax_pixels: rows and columns of a short-axis cine.
        earlier: what parts of the earlier generation have in the place of the later one's.
        parts: which generation each part is of.
        ecg_rate_hz: of the windows.
        view: which view ``cine_pixels`` and all that follows from them are of.
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
    phenotype_hidden: tuple[int, int]
    tokenizer: TokenizerSize
    generator: GeneratorSize
    diffusion: DiffusionSize
    sampling: SamplingSize
    fusion: TransformerSize
    sax_pixels: int
    earlier: EarlierSizes
    parts: Parts = LATER
    ecg_rate_hz: int = STORED_RATE_HZ
    view: Literal["4ch", "sax"] = "4ch"

    @property
    def swin(self) -> SwinSize | None:
        """The towers of the earlier generation; None where the tower is the later one's."""
        return self.earlier.swin if self.parts.two_views else None

    @property
    def cmr_width(self) -> int:
        """Width of a cine's feature."""
        return self.swin.last_width if self.swin else self.cmr_encoder.width

    @property
    def stored_samples(self) -> int:
        """Samples that a window takes of a recording as it is kept, at 250 Hz."""
        return self.ecg_samples * STORED_RATE_HZ // self.ecg_rate_hz

    @property
    def stored_patch(self) -> int:
        """Samples that a patch takes of a recording as it is kept, at 250 Hz."""
        return self.ecg_patch * STORED_RATE_HZ // self.ecg_rate_hz

    @property
    def short_axis(self) -> Preset:
        """The same sizes for the short-axis view."""
        return replace(self, cine_pixels=self.sax_pixels, view="sax")

    @property
    def ecg_patches(self) -> int:
        """Patches of one lead."""
        return self.ecg_samples // self.ecg_patch

    @property
    def cine_side(self) -> int:
        """Patches in one row of a cine."""
        return self.cine_pixels // self.cine_patch

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, rows and columns of a latent."""
        size = self.tokenizer
        side = self.cine_pixels >> (len(size.multipliers) - 1)
        return (size.latent, self.cine_frames >> size.time_halvings, side, side)

    @property
    def latent_grid(self) -> tuple[int, int, int]:
        """Tokens of a latent along time, rows and columns."""
        _, frames, rows, columns = self.latent_shape
        time, row, column = self.generator.patch
        return (frames // time, rows // row, columns // column)

    @property
    def latent_tokens(self) -> int:
        """Tokens of a latent."""
        return math.prod(self.latent_grid)

    @property
    def token_width(self) -> int:
        """Latent values of a token."""
        return self.tokenizer.latent * math.prod(self.generator.patch)

    @property
    def principal(self) -> int:
        """Principal coordinates of a cine's feature: as many as the common space has, which they replace."""
        return self.projection


class InputSize(NamedTuple):
    """What the encoders of a preset take, as plain numbers and names."""

    ecg_samples: int
    cine_frames: int
    cine_pixels: int
    sax_pixels: int
    ecg_window: Literal["standardised", "image"]
    covariates: bool
    preset: str


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
        phenotype_hidden=(32, 16),
        tokenizer=TokenizerSize(
            channels=16,
            multipliers=(1, 2, 2),
            blocks=1,
            latent=4,
            groups=8,
            heads=2,
            time_halvings=1,
            discriminator=8,
        ),
        generator=GeneratorSize(patch=(2, 2, 2), width=64, depth=2, heads=4, buffer=8),
        diffusion=DiffusionSize(width=64, depth=2, steps=100),
        sampling=SamplingSize(steps=4, diffusion_steps=10, guidance=1.5),
        fusion=TransformerSize(width=64, depth=1, heads=4),
        sax_pixels=24,
        earlier=EARLIER_SIZES["nano"],
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
        phenotype_hidden=(128, 64),
        tokenizer=TokenizerSize(
            channels=16,
            multipliers=(1, 2, 4, 4),
            blocks=1,
            latent=8,
            groups=16,
            heads=4,
            time_halvings=1,
            discriminator=16,
        ),
        generator=GeneratorSize(patch=(3, 2, 2), width=256, depth=6, heads=4, buffer=16),
        diffusion=DiffusionSize(width=256, depth=3, steps=1000),
        sampling=SamplingSize(steps=8, diffusion_steps=50, guidance=3.0),
        fusion=TransformerSize(width=256, depth=2, heads=4),
        sax_pixels=48,
        earlier=EARLIER_SIZES["small"],
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
        phenotype_hidden=(256, 128),
        tokenizer=TokenizerSize(
            channels=128,
            multipliers=(1, 2, 4, 4),
            blocks=2,
            latent=16,
            groups=32,
            heads=8,
            time_halvings=1,
            discriminator=64,
        ),
        generator=GeneratorSize(patch=(5, 2, 2), width=768, depth=12, heads=12, buffer=64),
        diffusion=DiffusionSize(width=1024, depth=3, steps=1000),
        sampling=SamplingSize(steps=16, diffusion_steps=100, guidance=3.0),
        fusion=TransformerSize(width=768, depth=4, heads=8),
        sax_pixels=80,
        earlier=EARLIER_SIZES["paper"],
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of a name: ``nano``, or one with parts of the earlier generation, ``nano+cardiacnets``.

    Raises:
        UnknownNameError: there is none.
    """
    size, parts = split_name(name)
    if size not in PRESETS:
        raise UnknownNameError(
            f"there is no preset {size!r}{did_you_mean(size, PRESETS)}",
            where="study: preset",
            remedy=f"use one of: {', '.join(PRESETS)}",
        )
    preset = PRESETS[size]
    earlier = preset.earlier
    if parts.ecg_is_image:
        preset = replace(
            preset,
            ecg_samples=earlier.ecg_samples,
            ecg_patch=earlier.ecg_patch,
            ecg_rate_hz=2 * STORED_RATE_HZ,
            ecg_encoder=earlier.ecg_encoder,
        )
    if parts.cmr_generator == "diffusion":
        preset = replace(
            preset,
            diffusion=replace(preset.diffusion, steps=earlier.diffusion_steps),
            sampling=earlier.sampling,
        )
    return replace(preset, name=models_name(size, parts), parts=parts)


def input_shape(preset: str) -> InputSize:
    """What the encoders of a preset take; samples are those of the kept recording, at 250 Hz.

    Raises:
        UnknownNameError: there is no such preset.
    """
    sizes = get_preset(preset)
    return InputSize(
        ecg_samples=sizes.stored_samples,
        cine_frames=sizes.cine_frames,
        cine_pixels=sizes.cine_pixels,
        sax_pixels=sizes.sax_pixels,
        ecg_window="image" if sizes.parts.ecg_is_image else "standardised",
        covariates=sizes.parts.takes_covariates,
        preset=sizes.name,
    )
