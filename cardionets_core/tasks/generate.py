"""The generator's phase: latents of cines from ECG embeddings, masked and denoised (SCIENCE 4 and 5.4).

The ECG's encoder and projection and the tokenizer are frozen. What they give is made once: an embedding of
each row, the mean over its evaluation windows and never that of a random crop, and a posterior of each cine.
A step looks both up and loads no record.

Legend: B rows, L tokens of a latent, K values of a token, H hidden tokens, P width of the ECG embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.losses.diffusion import (
    REPEATS,
    DiffusionLoss,
    DiffusionProcess,
    cosine_process,
    diffusion_loss,
    draw_diffusion,
)
from cardionets_core.models.cmr_generator import CONDITION_DROP, CmrGenerator
from cardionets_core.models.cmr_tokenizer import Posterior, draw_latent
from cardionets_core.models.generator_masking import draw_generator_mask
from cardionets_core.models.masking import gather_patches
from cardionets_core.models.patches import patchify_latent
from cardionets_core.models.presets import Preset
from cardionets_core.privacy.counts import DIVISOR, Counts
from cardionets_core.tasks.base import (
    GradientTask,
    Modules,
    Role,
    Scalar,
    SiteView,
    Sums,
    TaskLoss,
    count_sums,
)
from cardionets_core.tasks.cases import choose_cases, kept_conditions
from cardionets_core.tasks.drawing import (
    DRAWING_OPTIONS,
    DrawingSettings,
    check_drawing,
    drawing_of,
    preset_of,
)
from cardionets_core.tasks.generation_sums import generation_metrics, generation_sums, no_generation
from cardionets_core.tasks.generators import generator_kind
from cardionets_core.tasks.latents import LatentTable, training_latents
from cardionets_core.tasks.row_features import RowTable
from cardionets_core.tasks.short_axis import VIEW_CHOICE, VIEW_OPTION


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateState:
    """What the steps of a round look up.

    Attributes:
        latents: posterior of each training cine.
        conditions: condition of each training row; None where the site has cines alone.
        preset: sizes.
    """

    latents: LatentTable
    conditions: RowTable | None
    preset: Preset


class Generate(GradientTask):
    """The diffusion loss of the hidden tokens, one mask rate a batch, an order of its own for each row.

    Options:
        label_drop: how often a row's condition is replaced by the null vector.
        repeats: times and noises drawn for each hidden token.
        half_latents: keep latents as float16.
        cine_only_sites: sites without ECGs take part, with the null condition alone.
        guidance: in the measurement's drawing; 0 is the preset's, 1 is none.
        temperature: of the denoising steps' noise; 0 is the preset's, 1 is the process as it was trained.
        ar_steps: autoregressive steps of drawing; 0 is the preset's.
        diffusion_steps: denoising steps of drawing; 0 is the preset's.
        draws: latents that are averaged for a cine; 0 is one. More lie nearer to the expected heart, and are
            less lively.
        measured_patients: for at most so many people cines are drawn and compared at each site.
        view: of the cines, ``4ch`` or ``sax``; each view has a generator of its own.
    """

    name = "generate"
    needs = frozenset({"ecg", "cine"})
    batch_keys = frozenset()
    decomposes = True
    primary = "ssim"
    higher_is_better = True
    counts: ClassVar[Counts] = {"*/n": DIVISOR}
    defaults: ClassVar[dict[str, Scalar]] = {
        "label_drop": CONDITION_DROP,
        "repeats": REPEATS,
        "half_latents": False,
        "cine_only_sites": False,
        **DRAWING_OPTIONS,
        "measured_patients": 64,
        **VIEW_OPTION,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = VIEW_CHOICE

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        where = "study: phases: options of task generate"
        if not 0.0 <= self._number("label_drop") <= 1.0:
            raise ConfigError("label_drop lies between 0 and 1", where=where)
        if min(self._number("repeats"), self._number("measured_patients")) < 1:
            raise ConfigError("repeats and measured_patients are 1 or more", where=where)
        check_drawing(self.options, where=where)
        kind = generator_kind(parts)
        self.trains = kind.trained
        self.reads = (*kind.conditioned_by, "cmr_tokenizer", "cmr_encoder")

    @property
    def roles(self) -> tuple[Role, ...]:
        """With pairs; and, where the options allow it, with cines alone."""
        full = Role(name="full", needs=self.needs, trains=self.trains)
        if not self.options["cine_only_sites"]:
            return (full,)
        return (full, Role(name="cine-only", needs=frozenset({"cine"}), trains=self.trains))

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> GenerateState:
        """Make or fetch the latents and the conditions of the training rows."""
        preset = preset_of(site.shape)
        conditions = None
        if "ecg" in role.needs:
            conditions = RowTable(
                kept_conditions(modules, site, needs=role.needs, split="train"),
                site.rows(role.needs, "train"),
                total=len(site.cohort.row_patient),
            )
        return GenerateState(
            latents=training_latents(modules, site, half=bool(self.options["half_latents"])),
            conditions=conditions,
            preset=preset,
        )

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Draw latents, hide tokens, predict the noise in them."""
        state = cast(GenerateState, state)
        if state.conditions is None:
            condition_BP = self._no_condition(batch.size, state.preset).to(batch.row_B.device)
            dropped_B = torch.ones(batch.size, dtype=torch.bool, device=batch.row_B.device)
        else:
            condition_BP = state.conditions.take(batch.row_B).float()
            dropped_B = torch.rand(batch.size, generator=generator) < self._number("label_drop")
        parts = self._row_losses(
            modules,
            state.latents.take(batch.row_B),
            condition_BP,
            dropped_B=dropped_B.to(condition_BP.device),
            preset=state.preset,
            generator=generator,
        )
        total_B = _added(parts)
        return TaskLoss(
            total=total_B.mean(),
            per_sample_B=total_B,
            parts={name: float(value_B.detach().mean()) for name, value_B in parts.items()},
        )

    def drawing(self, preset: Preset) -> DrawingSettings:
        """How this task's cines are drawn."""
        return drawing_of(self.options, preset)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums of ``generation_sums`` over one row of each of at most ``measured_patients`` people."""
        preset = preset_of(site.shape)
        rows = choose_cases(
            site.cohort,
            site.rows(self.needs, split),
            most=int(self.options["measured_patients"]),
            seed=seed,
        )
        counts = count_sums(site.cohort, rows)
        if not len(rows):
            return {**counts, **no_generation(preset)}
        for name in (*self.trains, *self.reads):
            modules[name].eval()
        generator = torch.Generator().manual_seed(seed)

        def loss_of(posterior: Posterior, condition_BP: torch.Tensor) -> torch.Tensor:
            return _added(
                self._row_losses(
                    modules, posterior, condition_BP, dropped_B=None, preset=preset, generator=generator
                )
            )

        found = generation_sums(
            modules, site, rows, settings=self.drawing(preset), seed=seed, loss_of=loss_of
        )
        return {**counts, **found}

    def _no_condition(self, rows: int, preset: Preset) -> torch.Tensor:
        """A condition that every row drops."""
        return torch.zeros(rows, preset.projection)

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
        """The parts of the loss by name, ``[B]`` each; the loss is their sum."""
        found = hidden_token_loss(
            modules,
            posterior,
            condition_BP=condition_BP,
            dropped_B=dropped_B,
            preset=preset,
            process=cosine_process(preset.diffusion.steps),
            repeats=int(self.options["repeats"]),
            generator=generator,
        )
        return {"noise_error": found.noise_error_B, "bound": found.bound_B}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics of ``generation_metrics``: ``ssim`` and ``psnr`` beside those of three references."""
        found = {"n_rows": float(sums["n_rows"][0]), "n_patients": float(sums["n_patients"][0])}
        return {**found, **generation_metrics(sums)}


def hidden_token_loss(
    modules: Modules,
    posterior: Posterior,
    *,
    condition_BP: torch.Tensor,
    dropped_B: torch.Tensor | None,
    preset: Preset,
    process: DiffusionProcess,
    repeats: int,
    generator: torch.Generator,
) -> DiffusionLoss:
    """``L_i`` of SCIENCE section 4 for each row.

    Args:
        modules: ``cmr_generator`` and ``diffusion_head``.
        posterior: of the rows' cines, on the modules' device.
        condition_BP: their ECG embeddings, not normalised.
        dropped_B: bool, rows that get the null vector.
        preset: sizes.
        process: of training.
        repeats: draws for each hidden token.
        generator: on the CPU; draws latent, mask, times and noise.
    """
    device = condition_BP.device
    tokens_BLK = patchify_latent(draw_latent(posterior, generator=generator), preset.generator.patch)
    mask = draw_generator_mask(len(tokens_BLK), tokens=preset.latent_tokens, generator=generator).to(device)
    model = cast(CmrGenerator, modules["cmr_generator"])
    z_BLD = model(tokens_BLK, mask.visible, condition_BP, dropped_B)
    hidden_BHK = gather_patches(tokens_BLK, mask.hidden)
    rows, hidden, width = hidden_BHK.shape
    draw = draw_diffusion((rows, hidden, width), process=process, generator=generator, repeats=repeats)
    return diffusion_loss(
        modules["diffusion_head"],
        hidden_BHK,
        gather_patches(z_BLD, mask.hidden),
        process=process,
        draw=draw.to(device),
    )


def _added(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts.values())).sum(dim=0)
