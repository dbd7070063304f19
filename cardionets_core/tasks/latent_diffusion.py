"""The phase ``generate`` of the earlier generation: diffusion of a whole latent, conditioned on ECG tokens.

All but the loss and the condition is that of ``generate``: latents, roles, drawing, measurement. The latent
is normalised as the tokenizer's decoder knows it.

Legend: B rows, N ECG tokens of width D; Z channels, T frames, H rows and W columns of a latent.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch

from cardionets_core.losses.latent_diffusion import (
    LatentProcess,
    draw_latent_diffusion,
    latent_diffusion_loss,
    scaled_linear_signal,
)
from cardionets_core.models.cmr_diffusion import CmrDiffusion
from cardionets_core.models.cmr_tokenizer import Posterior, draw_latent
from cardionets_core.models.presets import Preset
from cardionets_core.tasks.base import Modules, Scalar
from cardionets_core.tasks.generate import Generate


class GenerateByDiffusion(Generate):
    """Mean squared error of the noise in a latent, at a time drawn for each row.

    Options: as ``Generate``. ``repeats`` are times and noises drawn for each latent; ``temperature`` is eta,
    the share of the ancestral noise in a step (0, the preset's, is none); ``ar_steps`` is 0 or 1, since the
    whole latent is drawn at once.
    """

    defaults: ClassVar[dict[str, Scalar]] = {**Generate.defaults, "repeats": 1}

    def _no_condition(self, rows: int, preset: Preset) -> torch.Tensor:
        return torch.zeros(rows, 1, preset.ecg_encoder.width)

    def _row_losses(
        self,
        modules: Modules,
        posterior: Posterior,
        condition_BP: torch.Tensor,
        *,
        dropped_B: torch.Tensor | None,
        preset: Preset,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        model = cast(CmrDiffusion, modules["cmr_generator"])
        process = LatentProcess(scaled_linear_signal(preset.diffusion.steps))
        latent_BZTHW = draw_latent(posterior, generator=generator)
        errors = []
        for _ in range(int(self.options["repeats"])):
            draw = draw_latent_diffusion(tuple(latent_BZTHW.shape), process=process, generator=generator)
            errors.append(
                latent_diffusion_loss(
                    lambda noisy, time: model(noisy, time, condition_BP, dropped_B),
                    latent_BZTHW,
                    process=process,
                    draw=draw.to(latent_BZTHW.device),
                )
            )
        return {"noise_error": torch.stack(errors).mean(dim=0)}
