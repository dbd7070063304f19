"""The sizes of every model, by preset (SCIENCE section 2): nano for tests, small for a laptop, paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from cardionets_core.config.faults import did_you_mean
from cardionets_core.errors import UnknownNameError

LEADS = 12
PHENOTYPES = 82
DISEASES = 5
SUBTYPES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerSize:
    """Width, number of blocks, and heads of each block."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSize:
    """Sizes of the tokenizer V and of its discriminator.

    Attributes:
        channels: width of the first level.
        multipliers: width of each level in units of ``channels``; the plane is halved between two levels.
        blocks: residual blocks of an encoder's level; a decoder's level has twice as many.
        latent: channels of the latent.
        groups: groups of every group norm.
        heads: attention heads in the middle.
        time_halvings: how many of the halvings, the last ones, also halve the frames.
        discriminator: width of the discriminator's first layer.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    latent: int
    groups: int
    heads: int
    time_halvings: int
    discriminator: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSize:
    """Sizes of the generator G: latent patch (time, row, column), transformer, buffer tokens.

    Attributes:
        patch: latent values of a token along time, rows and columns.
        width: of the transformer.
        depth: blocks of the encoder, and of the decoder.
        heads: heads of each block.
        buffer: tokens that carry the condition.
    """

    patch: tuple[int, int, int]
    width: int
    depth: int
    heads: int
    buffer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionSize:
    """Width, residual blocks, and training steps of the diffusion head DH."""

    width: int
    depth: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSize:
    """How a cine is sampled.

    Attributes:
        steps: autoregressive steps.
        diffusion_steps: denoising steps within each of them.
        guidance: classifier-free guidance; 1 is none.
        temperature: what the noise of each denoising step is multiplied by; below 1 draws nearer to the mode.
    """

    steps: int
    diffusion_steps: int
    guidance: float
    temperature: float = 1.0


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
        phenotype_hidden: widths of the hidden layers of the phenotype head Hr.
        tokenizer: V.
        generator: G.
        diffusion: DH.
        sampling: of the generator.
        fusion: F.
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
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PRESETS:
        raise UnknownNameError(
            f"there is no preset {name!r}{did_you_mean(name, PRESETS)}",
            where="study: preset",
            remedy=f"use one of: {', '.join(PRESETS)}",
        )
    return PRESETS[name]


def input_shape(preset: str) -> InputSize:
    """Samples of a window, frames of a cine, pixels of its side.

    Raises:
        UnknownNameError: there is no such preset.
    """
    sizes = get_preset(preset)
    return InputSize(sizes.ecg_samples, sizes.cine_frames, sizes.cine_pixels)
