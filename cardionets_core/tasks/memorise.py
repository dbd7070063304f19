"""Does the generator return its training cases? A measurement before a release (SCIENCE 5.4(5)).

Asked in latent space, at each site, answered by counts alone. Real cases stand for themselves by the mean of
their posterior, without noise. A model that passes is not thereby private: the test sees copies, not
everything that can be learned of a person.

Legend: R rows; Z channels, T frames, H rows and W columns of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation.memorisation import (
    SUM_NAMES,
    Latents,
    judge_memorisation,
    memorisation_sums,
)
from cardionets_core.privacy.counts import INNER, Counts
from cardionets_core.tasks.base import MeasureTask, Modules, Scalar, SiteView, Sums, count_sums, one
from cardionets_core.tasks.cases import choose_cases, conditions_of, row_seeds
from cardionets_core.tasks.drawing import (
    DRAWING_BATCH,
    DRAWING_OPTIONS,
    DrawingSettings,
    check_drawing,
    draw_latents,
    drawing_of,
    preset_of,
)
from cardionets_core.tasks.generators import generator_kind
from cardionets_core.tasks.latents import real_latents
from cardionets_core.tasks.short_axis import VIEW_CHOICE, VIEW_OPTION


class Memorisation(MeasureTask):
    """Counts for the two questions of ``evaluation.memorisation``, and the verdict on them.

    Options:
        measured_patients: at most so many held-out people, and as many training people, for whom a latent is
            drawn.
        training_cases: at most so many training people whose cases a drawn latent is compared with; those
            for whom one is drawn are among them. A copy of a case beyond them is not seen.
        guidance, temperature, ar_steps, diffusion_steps, draws: of drawing; 0 is the preset's. They should be
            those of the use that the release is for.
        view: whose generator is asked, ``4ch`` or ``sax``.
    """

    name = "memorisation"
    needs = frozenset({"ecg", "cine"})
    primary = "passes"
    higher_is_better = True
    counts: ClassVar[Counts] = dict.fromkeys(SUM_NAMES, INNER)
    defaults: ClassVar[dict[str, Scalar]] = {
        "measured_patients": 256,
        "training_cases": 4096,
        **DRAWING_OPTIONS,
        **VIEW_OPTION,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = VIEW_CHOICE

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        where = "study: phases: options of task memorisation"
        if not 1 <= self._number("measured_patients") <= self._number("training_cases"):
            raise ConfigError("measured_patients lies between 1 and training_cases", where=where)
        check_drawing(self.options, where=where)
        kind = generator_kind(parts)
        self.reads = (*kind.conditioned_by, *kind.drawers)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Counts of ``memorisation_sums``; held-out people are those of the split."""
        cohort = site.cohort
        most, cases = int(self.options["measured_patients"]), int(self.options["training_cases"])
        held_out = choose_cases(cohort, site.rows(self.needs, split), most=most, seed=seed)
        training = choose_cases(cohort, site.rows(self.needs, "train"), most=cases, seed=seed)
        counts = count_sums(cohort, held_out)
        if not len(held_out) or not len(training):
            return {**counts, **{name: one(0.0) for name in SUM_NAMES}}
        settings = drawing_of(self.options, preset_of(site.shape))
        latents = Latents(
            training=real_latents(modules, site, training).numpy(),
            held_out=real_latents(modules, site, held_out).numpy(),
            from_held_out=drawn_latents(modules, site, held_out, settings=settings, seed=seed).numpy(),
            from_training=drawn_latents(modules, site, training[:most], settings=settings, seed=seed).numpy(),
        )
        return {**counts, **memorisation_sums(latents, seed=seed)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """``passes`` (1 or 0) and what it follows from.

        ``training_share`` with its interval ``training_share_low``, ``training_share_high`` around .5,
        ``effective_votes``; ``duplicates`` of drawn and ``held_out_duplicates`` of real held-out cases,
        ``duplicates_p``; ``conclusive``. Too few cases do not pass.
        """
        found = {"n_rows": float(sums["n_rows"][0]), "n_patients": float(sums["n_patients"][0])}
        if found["n_rows"] <= 0:
            return found
        verdict = judge_memorisation(sums)
        values = {
            "passes": float(verdict.passes),
            "conclusive": float(verdict.conclusive),
            "training_share": verdict.training_share,
            "training_share_low": verdict.lowest_share,
            "training_share_high": verdict.highest_share,
            "effective_votes": float(verdict.effective_votes),
            "duplicates": verdict.sample_duplicates,
            "held_out_duplicates": verdict.held_out_duplicates,
            "duplicates_p": verdict.duplicates_p_value,
        }
        return {**found, **{name: value for name, value in values.items() if np.isfinite(value)}}


def drawn_latents(
    modules: Modules, site: SiteView, rows: np.ndarray, *, settings: DrawingSettings, seed: int
) -> torch.Tensor:
    """A latent drawn from the ECG of each of some rows, float32 ``[R, Z, T, H, W]`` on the CPU; R > 0."""
    condition_RP = conditions_of(modules, site, rows)
    seeds = row_seeds(seed, rows, site=site.cohort.site)
    parts = []
    for begin in range(0, len(rows), DRAWING_BATCH):
        some = slice(begin, begin + DRAWING_BATCH)
        drawn = draw_latents(
            modules, condition_RP[some], settings=settings, seeds=seeds[some], device=site.device
        )
        parts.append(drawn.cpu())
    return torch.cat(parts)
