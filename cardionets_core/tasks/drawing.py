"""Cines drawn from ECG embeddings (step 6 of the walk; SCIENCE section 4).

Comes in: conditions of ``cases``, one seed a row. Goes out: latents or cines. Each
row's noise follows from its own seed, so a cine does not depend on the batch in which it is drawn.

A drawn cine adds no information beyond its ECG, and volumes cannot be read off it: whoever shows one, or
measures on it, says so (``NOTICE``).

Legend: B rows, P width of the ECG embedding; F frames, Y rows and X columns of pixels; Z channels, T frames,
H rows and W columns of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import nn

from cardionets_core.data.windows import InputShape
from cardionets_core.errors import ConfigError
from cardionets_core.losses.diffusion import cosine_process
from cardionets_core.losses.latent_diffusion import LatentProcess, scaled_linear_signal
from cardionets_core.models.cmr_diffusion import CmrDiffusion
from cardionets_core.models.cmr_generator import CmrGenerator
from cardionets_core.models.cmr_tokenizer import CmrTokenizer, normalise_latent
from cardionets_core.models.diffusion_head import DiffusionHead
from cardionets_core.models.latent_sampling import sample_latents
from cardionets_core.models.patches import unpatchify_latent
from cardionets_core.models.presets import Preset, get_preset
from cardionets_core.models.sampling import sample_tokens
from cardionets_core.models.sizes import SamplingSize
from cardionets_core.tasks.base import Modules, Scalar
from cardionets_core.tasks.cases import row_seeds
from cardionets_core.tasks.generators import generator_kind

NOTICE = "A generated cine adds no information beyond its ECG, and volumes cannot be read off it."
DRAWING_OPTIONS: dict[str, Scalar] = {
    "guidance": 0.0,
    "temperature": 0.0,
    "ar_steps": 0,
    "diffusion_steps": 0,
    "draws": 0,
}
"""Options of every task that draws; 0 is the preset's. A guidance of 1 is none, a temperature of 1 is the
process as it was trained. The latents of several draws are averaged; 0 and 1 are a single one."""
DRAWING_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingSettings:
    """How cines are drawn. Equal settings, modules, conditions and seeds give equal cines.

    Attributes:
        patch: latent values of a token along time, rows and columns.
        grid: tokens of a latent along time, rows and columns.
        training_steps: times of the process that the diffusion head was trained on.
        plan: autoregressive steps, denoising steps within each of them, guidance (1 is none).
        kind: of generator, a key of ``GENERATORS``.
        draws: how many latents are averaged. One is a heart that may go with the ECG; the mean of several
            lies nearer to what is expected of it, and is less lively.
    """

    patch: tuple[int, int, int]
    grid: tuple[int, int, int]
    training_steps: int
    plan: SamplingSize
    kind: str = "mar"
    draws: int = 1


def preset_of(shape: InputShape) -> Preset:
    """The preset whose sizes these are, of the view that they show.

    Raises:
        UnknownNameError: there is none of that name.
    """
    preset = get_preset(shape.preset)
    return preset if shape.view == "4ch" else preset.short_axis


def drawing_settings(
    preset: Preset,
    *,
    steps: int = 0,
    diffusion_steps: int = 0,
    guidance: float = 0.0,
    temperature: float = 0.0,
    draws: int = 0,
) -> DrawingSettings:
    """The preset's way of drawing; a number that is 0 is the preset's, and of ``draws`` one.

    Raises:
        ConfigError: more autoregressive steps than tokens, or denoising steps than times, or too few.
    """
    plan = SamplingSize(
        steps=steps or preset.sampling.steps,
        diffusion_steps=diffusion_steps or preset.sampling.diffusion_steps,
        guidance=guidance or preset.sampling.guidance,
        temperature=temperature or preset.sampling.temperature,
    )
    kind = generator_kind(preset.parts)
    most, longest = 1 if kind.takes_tokens else preset.latent_tokens, preset.diffusion.steps
    if not 1 <= plan.steps <= most or not 2 <= plan.diffusion_steps <= longest:
        raise ConfigError(
            f"{plan.steps} autoregressive and {plan.diffusion_steps} denoising steps",
            where=f"study: phases: options (preset {preset.name})",
            remedy=f"take {'1' if most == 1 else f'1 to {most}'} and 2 to {longest}, or 0 for the preset's",
        )
    if kind.takes_tokens and not 0.0 <= plan.temperature <= 1.0:
        raise ConfigError(
            f"a temperature of {plan.temperature:g}",
            where=f"study: phases: options (preset {preset.name})",
            remedy="take 0 to 1: for latent diffusion it is eta, the share of the ancestral noise",
        )
    return DrawingSettings(
        patch=preset.generator.patch,
        grid=preset.latent_grid,
        training_steps=longest,
        plan=plan,
        kind=preset.parts.cmr_generator,
        draws=draws or 1,
    )


def check_drawing(options: Mapping[str, Scalar], *, where: str) -> None:
    """Refuse numbers that no preset could draw with.

    Raises:
        ConfigError: one of ``DRAWING_OPTIONS`` is negative.
    """
    if min(float(options[name]) for name in DRAWING_OPTIONS) < 0:
        *some, last = DRAWING_OPTIONS
        raise ConfigError(f"{', '.join(some)} and {last} are 0 or more", where=where)


def drawing_of(options: Mapping[str, Scalar], preset: Preset) -> DrawingSettings:
    """What ``DRAWING_OPTIONS`` of a task say; raises as ``drawing_settings``."""
    return drawing_settings(
        preset,
        steps=int(options["ar_steps"]),
        diffusion_steps=int(options["diffusion_steps"]),
        guidance=float(options["guidance"]),
        temperature=float(options["temperature"]),
        draws=int(options["draws"]),
    )


def draw_latents(
    modules: Modules,
    condition_BP: torch.Tensor,
    *,
    settings: DrawingSettings,
    seeds: Sequence[int],
    device: torch.device,
    conditional: bool = True,
) -> torch.Tensor:
    """One latent for each row, float32 ``[B, Z, T, H, W]`` on the device.

    The mean of ``settings.draws`` of them, normalised as the decoder knows its latents. The first draw of a
    row has the row's own seed, so a single one is the first of several.

    Args:
        modules: those of the generator, on the device; they are set to eval mode.
        condition_BP: ECG embeddings, not normalised; for latent diffusion ECG tokens ``[B, N, D]``.
        settings: how.
        seeds: one for each row.
        device: where to compute.
        conditional: False puts the learned null vector in place of every condition, without guidance: what
            the generator draws without any ECG, from the same seeds.
    """
    if settings.kind == "diffusion":
        draw_once = partial(_by_diffusion, conditional=conditional)
    else:
        draw_once = partial(_token_by_token, conditional=conditional)
    condition_BP = condition_BP.float().to(device)
    total_BZTHW = torch.zeros((), device=device)
    for draw in range(settings.draws):
        own = [row_seeds(seed, [draw], site="draw")[0] for seed in seeds] if draw else seeds
        total_BZTHW = total_BZTHW + draw_once(modules, condition_BP, settings=settings, seeds=own)
    return total_BZTHW if settings.draws == 1 else normalise_latent(total_BZTHW)


def _token_by_token(
    modules: Modules,
    condition_BP: torch.Tensor,
    *,
    settings: DrawingSettings,
    seeds: Sequence[int],
    conditional: bool,
) -> torch.Tensor:
    generator = cast(CmrGenerator, modules["cmr_generator"].eval())
    head = cast(DiffusionHead, modules["diffusion_head"].eval())
    source = generator if conditional else _Unconditional(generator)
    plan = settings.plan if conditional else replace(settings.plan, guidance=1.0)
    process = cosine_process(settings.training_steps)
    sampled = sample_tokens(source, head, condition_BP=condition_BP, process=process, plan=plan, seeds=seeds)
    return unpatchify_latent(sampled.tokens_BLK, patch=settings.patch, grid=settings.grid)


def _by_diffusion(
    modules: Modules,
    condition_BND: torch.Tensor,
    *,
    settings: DrawingSettings,
    seeds: Sequence[int],
    conditional: bool,
) -> torch.Tensor:
    plan = settings.plan
    return sample_latents(
        cast(CmrDiffusion, modules["cmr_generator"].eval()),
        condition_BND=condition_BND,
        process=LatentProcess(scaled_linear_signal(settings.training_steps)),
        steps=plan.diffusion_steps,
        guidance=plan.guidance if conditional else 0.0,
        eta=plan.temperature,
        seeds=seeds,
    )


def draw_cines(
    modules: Modules,
    condition_BP: torch.Tensor,
    *,
    settings: DrawingSettings,
    seeds: Sequence[int],
    device: torch.device,
    conditional: bool = True,
) -> torch.Tensor:
    """One cine for each row, clamped to [-1, 1], float32 ``[B, F, Y, X]`` on the device.

    Arguments as ``draw_latents``, with ``cmr_tokenizer`` among the modules. At most ``DRAWING_BATCH`` rows
    are drawn at a time; all are returned together.
    """
    tokenizer = cast(CmrTokenizer, modules["cmr_tokenizer"].eval())
    parts = []
    with torch.no_grad():
        for begin in range(0, max(len(condition_BP), 1), DRAWING_BATCH):
            some = slice(begin, begin + DRAWING_BATCH)
            latent_BZTHW = draw_latents(
                modules,
                condition_BP[some],
                settings=settings,
                seeds=seeds[some],
                device=device,
                conditional=conditional,
            )
            parts.append(tokenizer.decode(latent_BZTHW).float().clamp(-1.0, 1.0))
    return torch.cat(parts)


class _Unconditional(CmrGenerator):
    """A generator that shares everything with another one, and gives the null vector for every condition."""

    def __init__(self, generator: CmrGenerator) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(generator.__dict__)

    def condition(self, condition_BP: torch.Tensor, dropped_B: torch.Tensor | None = None) -> torch.Tensor:
        """The null vector for each row."""
        return self.null_condition.expand(len(condition_BP), -1)
