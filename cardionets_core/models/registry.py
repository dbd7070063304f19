"""Every named module of the product model, and how it is built: the same seed gives the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from cardionets_core.errors import UnknownNameError
from cardionets_core.models.align_scale import AlignScale
from cardionets_core.models.cmr_diffusion import CmrDiffusion
from cardionets_core.models.cmr_encoder import CmrEncoder
from cardionets_core.models.cmr_generator import CmrGenerator
from cardionets_core.models.cmr_tokenizer import CmrTokenizer
from cardionets_core.models.diffusion_head import DiffusionHead
from cardionets_core.models.ecg_encoder import EcgEncoder
from cardionets_core.models.ecg_vit import EcgVit
from cardionets_core.models.ecg_vit_decoder import EcgVitDecoder
from cardionets_core.models.fusion_head import FusionHead
from cardionets_core.models.heads import (
    ScreeningHead,
    make_phenotype_head,
    make_phenotype_probe,
    make_projection,
)
from cardionets_core.models.mae_decoders import CmrDecoder, EcgDecoder
from cardionets_core.models.presets import (
    COVARIATES,
    DISEASES,
    LEADS,
    PHENOTYPES,
    SUBTYPES,
    Preset,
    get_preset,
)
from cardionets_core.models.solved import (
    CmrPrincipal,
    PhenotypeStandardiser,
    ScreeningCalibration,
    ScreeningPrior,
)
from cardionets_core.models.swin import CmrSwin, SwinDecoder
from cardionets_core.models.tokenizer_discriminator import TokenizerDiscriminator
from cardionets_core.models.transformer import DrawsOwnWeights, initialise


def _ecg_encoder(preset: Preset) -> nn.Module:
    size = preset.ecg_encoder
    kind: Callable[..., nn.Module] = EcgEncoder
    if preset.parts.ecg_is_image:
        kind = partial(EcgVit, covariates=COVARIATES if preset.parts.takes_covariates else 0)
    return kind(
        leads=LEADS,
        patch=preset.ecg_patch,
        patches=preset.ecg_patches,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
    )


def _ecg_decoder(preset: Preset) -> nn.Module:
    size = preset.ecg_decoder
    kind: Callable[..., nn.Module] = EcgDecoder
    if preset.parts.ecg_is_image:
        kind = partial(EcgVitDecoder, leads=LEADS)
    return kind(
        patch=preset.ecg_patch,
        patches=preset.ecg_patches,
        encoder_width=preset.ecg_encoder.width,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
    )


def _cmr_encoder(preset: Preset) -> nn.Module:
    size, swin = preset.cmr_encoder, preset.swin
    if swin:
        return CmrSwin(
            frames=preset.cine_frames,
            pixels=swin.pixels,
            patch=swin.patch,
            width=swin.width,
            depths=swin.depths,
            heads=swin.heads,
            window=swin.window,
        )
    return CmrEncoder(
        frames=preset.cine_frames,
        pixels=preset.cine_pixels,
        patch=preset.cine_patch,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
    )


def _cmr_decoder(preset: Preset) -> nn.Module:
    size, swin = preset.cmr_decoder, preset.swin
    if swin:
        unit = swin.patch << (len(swin.depths) - 1)
        return SwinDecoder(width=swin.last_width, unit=unit, frames=preset.cine_frames)
    return CmrDecoder(
        patch=preset.cine_patch,
        frames=preset.cine_frames,
        side=preset.cine_side,
        encoder_width=preset.cmr_encoder.width,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
    )


def _cmr_tokenizer(preset: Preset) -> nn.Module:
    size = preset.tokenizer
    return CmrTokenizer(
        channels=size.channels,
        multipliers=size.multipliers,
        blocks=size.blocks,
        latent=size.latent,
        groups=size.groups,
        heads=size.heads,
        time_halvings=size.time_halvings,
    )


def _cmr_generator(preset: Preset) -> nn.Module:
    size = preset.generator
    if preset.parts.cmr_generator == "diffusion":
        return CmrDiffusion(
            latent=preset.latent_shape,
            patch=size.patch,
            condition=preset.ecg_encoder.width,
            width=size.width,
            depth=2 * size.depth,
            heads=size.heads,
        )
    return CmrGenerator(
        tokens=preset.latent_tokens,
        token_width=preset.token_width,
        condition=preset.projection,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        buffer=size.buffer,
    )


def _diffusion_head(preset: Preset) -> nn.Module:
    return DiffusionHead(
        token_width=preset.token_width,
        condition=preset.generator.width,
        width=preset.diffusion.width,
        depth=preset.diffusion.depth,
        times=preset.diffusion.steps,
    )


def _fusion_head(preset: Preset) -> nn.Module:
    size = preset.fusion
    return FusionHead(
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        outputs=DISEASES,
        ecg_width=preset.ecg_encoder.width,
        cmr_width=preset.cmr_width,
    )


def _phenotype_head(preset: Preset) -> nn.Module:
    return make_phenotype_head(preset.ecg_encoder.width, preset.phenotype_hidden, phenotypes=PHENOTYPES)


MODULES: dict[str, Callable[[Preset], nn.Module]] = {
    "ecg_encoder": _ecg_encoder,
    "ecg_decoder": _ecg_decoder,
    "cmr_encoder": _cmr_encoder,
    "cmr_decoder": _cmr_decoder,
    "ecg_projection": lambda preset: make_projection(preset.ecg_encoder.width, preset.projection),
    "cmr_projection": lambda preset: make_projection(preset.cmr_width, preset.projection),
    "phenotype_probe": lambda preset: make_phenotype_probe(preset.ecg_encoder.width, PHENOTYPES),
    "cmr_tokenizer": _cmr_tokenizer,
    "tokenizer_discriminator": lambda preset: TokenizerDiscriminator(preset.tokenizer.discriminator),
    "cmr_generator": _cmr_generator,
    "diffusion_head": _diffusion_head,
    "phenotype_head": _phenotype_head,
    "screening_head": lambda preset: ScreeningHead(preset.ecg_encoder.width),
    "fusion_head": _fusion_head,
    "phenotype_standardiser": lambda _: PhenotypeStandardiser(PHENOTYPES),
    "screening_prior": lambda _: ScreeningPrior(DISEASES, SUBTYPES),
    "screening_calibration": lambda _: ScreeningCalibration(DISEASES),
    "cmr_principal": lambda preset: CmrPrincipal(preset.cmr_width, preset.principal),
    "align_scale": lambda _: AlignScale(),
    "sax_encoder": lambda preset: _cmr_encoder(preset.short_axis),
    "sax_decoder": lambda preset: _cmr_decoder(preset.short_axis),
    "sax_projection": lambda preset: make_projection(preset.cmr_width, preset.projection),
    "sax_principal": lambda preset: CmrPrincipal(preset.cmr_width, preset.principal),
    "sax_tokenizer": lambda preset: _cmr_tokenizer(preset.short_axis),
    "sax_generator": lambda preset: _cmr_generator(preset.short_axis),
    "sax_diffusion_head": lambda preset: _diffusion_head(preset.short_axis),
}
"""Name of a module to how it is built at a preset. Those of the short axis are named ``sax_...``."""


def build_module(name: str, preset: str, *, seed: int, device: str | torch.device = "cpu") -> nn.Module:
    """Build one module with weights that depend on its name, its preset and the seed alone.

    Args:
        name: a key of ``MODULES``.
        preset: a name that ``get_preset`` knows.
        seed: any non-negative integer; torch's global generator is neither read nor changed.
        device: where the module goes; ``meta`` gives shapes without values.

    Raises:
        UnknownNameError: no such module or preset.
    """
    if name not in MODULES:
        raise UnknownNameError(f"there is no module {name!r}", remedy=f"use one of: {', '.join(MODULES)}")
    sizes = get_preset(preset)
    target = torch.device(device)
    # torch draws default weights while it constructs; the fork keeps that from the caller's generator.
    with torch.random.fork_rng(devices=[]), torch.device("meta" if target.type == "meta" else "cpu"):
        module = MODULES[name](sizes)
    if target.type == "meta":
        return module
    digest = hashlib.sha256(f"{name}/{seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    if isinstance(module, DrawsOwnWeights):
        module.draw_weights(generator)
    else:
        initialise(module, generator)
    return module.to(target)
