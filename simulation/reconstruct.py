"""What the finished tokenizer and the masked autoencoders make of held-out recordings.

Comes in: the run's checkpoints and cohorts. Goes out: arrays of one recording a site, external sites among
them. Nothing is measured here that the phases have not measured on everybody.

Legend: R recordings, F frames, Y rows and X columns of pixels, L leads, T samples, P patches of a lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.images import case_psnr, case_ssim
from cardionets_core.models import get_preset
from cardionets_core.models.cmr_tokenizer import CmrTokenizer
from cardionets_core.models.patches import unpatchify_cine
from cardionets_core.tasks.masked_autoencoders import MIDDLE_WINDOW, MaskedAutoencoder, Reconstruction
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.seeds import derive_seed
from simulation.phase_end import phase_end


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedCines:
    """Cines and what the tokenizer makes of them.

    Attributes:
        sites: of each recording.
        real_RFYX: in -1..1.
        made_RFYX: from a latent that was drawn as in training; may pass -1..1 a little.
        ssim_R: of the two.
        psnr_R: in dB.
    """

    sites: tuple[str, ...]
    real_RFYX: np.ndarray
    made_RFYX: np.ndarray
    ssim_R: np.ndarray
    psnr_R: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedCines:
    """Cines, what the encoder saw of them, and the decoder's answer.

    Attributes:
        sites: of each recording.
        real_RFYX: in -1..1.
        hidden_RYX: bool, what was hidden; the same in all frames.
        made_RFYX: the real pixels where they were visible, the decoder's where not.
    """

    sites: tuple[str, ...]
    real_RFYX: np.ndarray
    hidden_RYX: np.ndarray
    made_RFYX: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedEcgs:
    """Windows as the encoder takes them, what was hidden, and the decoder's answer.

    Attributes:
        sites: of each recording.
        real_RLT: the windows.
        hidden_RLT: bool.
        made_RLT: NaN where the window was visible.
        rate_hz: samples a second.
    """

    sites: tuple[str, ...]
    real_RLT: np.ndarray
    hidden_RLT: np.ndarray
    made_RLT: np.ndarray
    rate_hz: int


def tokenized_cines(study: Study, cohorts: Mapping[str, Cohort], *, folder: Path) -> TokenizedCines | None:
    """None where the study has no tokenizer, or nobody a held-out cine."""
    end = phase_end(study, "tokenizer", folder=folder)
    sites, batch = _first_of_each(study, cohorts, frozenset({"cine"}))
    if end is None or not sites:
        return None
    tokenizer = cast(CmrTokenizer, end.modules["cmr_tokenizer"])
    real_RFYX = cast(torch.Tensor, batch.cine_BFYX)
    with torch.no_grad():
        posterior = tokenizer.encode(real_RFYX)
        made_RFYX = tokenizer.decode(tokenizer.draw(posterior, generator=_generator(study)))
    return TokenizedCines(
        sites=sites,
        real_RFYX=real_RFYX.numpy(),
        made_RFYX=made_RFYX.numpy(),
        ssim_R=case_ssim(made_RFYX, real_RFYX).numpy(),
        psnr_R=case_psnr(made_RFYX, real_RFYX).numpy(),
    )


def masked_cines(study: Study, cohorts: Mapping[str, Cohort], *, folder: Path) -> MaskedCines | None:
    """None where the study has no such phase, or nobody a held-out cine."""
    sites, batch = _first_of_each(study, cohorts, frozenset({"cine"}))
    made = _reconstruct(study, "cmr_mae", batch, folder=folder) if sites else None
    if made is None:
        return None
    frames = cast(torch.Tensor, batch.cine_BFYX).shape[1]
    patch = round((made.target.shape[-1] / frames) ** 0.5)
    hidden = _hidden(made)
    answered = torch.where(hidden, made.predicted, made.target)
    # The real ones as the encoder cuts them: it may have resized them first.
    real, where, answer = (
        unpatchify_cine(value, pixels=patch, frames=frames).numpy()
        for value in (made.target, hidden.expand_as(made.target).float(), answered)
    )
    return MaskedCines(sites=sites, real_RFYX=real, hidden_RYX=where[:, 0] > 0, made_RFYX=answer)


def masked_ecgs(study: Study, cohorts: Mapping[str, Cohort], *, folder: Path) -> MaskedEcgs | None:
    """None where the study has no such phase, or nobody a held-out ECG."""
    sites, batch = _first_of_each(study, cohorts, frozenset({"ecg"}))
    made = _reconstruct(study, "ecg_mae", batch, folder=folder) if sites else None
    if made is None:
        return None
    real_RLT = cast(torch.Tensor, batch.ecg_BLT)
    hidden = _hidden(made)
    nan = torch.full_like(made.predicted, float("nan"))
    # Lead by lead, or all leads in one sequence: the samples stand in the same order.
    return MaskedEcgs(
        sites=sites,
        real_RLT=real_RLT.numpy(),
        hidden_RLT=hidden.expand_as(made.target).reshape(real_RLT.shape).numpy(),
        made_RLT=torch.where(hidden, made.predicted, nan).reshape(real_RLT.shape).numpy(),
        rate_hz=get_preset(study.models).ecg_rate_hz,
    )


def _first_of_each(
    study: Study, cohorts: Mapping[str, Cohort], needs: frozenset[str]
) -> tuple[tuple[str, ...], Batch]:
    """The first test recording of each site, and all of them as one batch."""
    shape = shape_of(study.models)
    sites, batches = [], []
    for name in sorted(cohorts):
        rows = cohorts[name].rows(needs, "test", shape)
        if len(rows):
            sites.append(name)
            batches.append(cohorts[name].batch(rows[:1], keys=needs, shape=shape, window=MIDDLE_WINDOW))

    def joined(values: list[torch.Tensor | None]) -> torch.Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if known else None

    empty = torch.zeros(len(sites), dtype=torch.int64)
    return tuple(sites), Batch(
        patient_B=empty,
        row_B=empty,
        ecg_BLT=joined([batch.ecg_BLT for batch in batches]),
        cine_BFYX=joined([batch.cine_BFYX for batch in batches]),
    )


def _reconstruct(study: Study, name: str, batch: Batch, *, folder: Path) -> Reconstruction | None:
    end = phase_end(study, name, folder=folder)
    if end is None:
        return None
    task = cast(MaskedAutoencoder, end.task)
    with torch.no_grad():
        return task.reconstruct(end.modules, batch, generator=_generator(study))


def _generator(study: Study) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(study.seed, "pictures"))


def _hidden(made: Reconstruction) -> torch.Tensor:
    """Bool, True where a patch was hidden, with a last axis of 1."""
    patches = torch.zeros(made.target.shape[:-1], dtype=torch.bool)
    return patches.scatter(-1, made.hidden, True)[..., None]
