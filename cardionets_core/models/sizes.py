"""The kinds of sizes that a model has (SCIENCE section 2); ``presets`` gives them numbers."""

from __future__ import annotations

from dataclasses import dataclass


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
class SwinSize:
    """Sizes of a tower of the earlier generation.

    Attributes:
        pixels: rows and columns to which its cines are resized.
        patch: rows and columns of a patch.
        width: of the first stage; each further stage has half the rows and columns, and twice the width.
        depths: blocks of each stage.
        heads: of the blocks of each stage.
        window: positions along a side of a window, inside which positions attend to each other.
    """

    pixels: int
    patch: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int

    @property
    def last_width(self) -> int:
        """Of the last stage, and of the feature."""
        return self.width << (len(self.depths) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierSizes:
    """What a preset's parts of the earlier generation have in the place of the later one's.

    Attributes:
        ecg_samples: samples of a window at 500 Hz.
        ecg_patch: samples of a patch.
        ecg_encoder: the image transformer.
        swin: each of the two towers.
        diffusion_steps: training times of the latent diffusion.
        sampling: of it; one pass, so ``steps`` is 1, and ``temperature`` is the share of the ancestral noise
            (eta), 0 for none.
    """

    ecg_samples: int
    ecg_patch: int
    ecg_encoder: TransformerSize
    swin: SwinSize
    diffusion_steps: int
    sampling: SamplingSize
