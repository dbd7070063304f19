"""What drawn cines are worth, as sums that may be added over sites (SCIENCE section 7).

For each case one cine is drawn from its ECG and compared with its own cine. Three references are measured on
the same cases: a cine drawn from the same noise without any ECG, a cine drawn from the same noise with the
ECG of another person, and the mean of the site's training cines. Only a drawn cine that beats the first two
says something about its ECG; an SSIM that only beats noise may come from the mean heart.

Volumes cannot be read off drawn cines: the correlations with phenotypes are those of a regressor
(``CmrRegressor``).

Legend: B and R cases, D feature's width, P width of the ECG embedding, F frames, Y rows and X columns, K
phenotypes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import numpy as np
import torch

from cardionets_core.data.batches import Batch
from cardionets_core.data.phenotypes import FIRST_FIELD
from cardionets_core.evaluation.frechet import feature_moments, frechet_distance
from cardionets_core.evaluation.images import case_ssim
from cardionets_core.evaluation.regression import (
    SUM_NAMES,
    measured_columns,
    pearson,
    regression_sums,
)
from cardionets_core.evaluation.small_groups import without_small_columns
from cardionets_core.models.cmr_tokenizer import CmrTokenizer, Posterior
from cardionets_core.models.presets import PHENOTYPES, Preset
from cardionets_core.tasks.base import Modules, SiteView, Sums, one
from cardionets_core.tasks.cases import conditions_of, row_seeds
from cardionets_core.tasks.cmr_regressor import fit_cmr_regressor
from cardionets_core.tasks.drawing import DRAWING_BATCH, DrawingSettings, draw_cines, preset_of
from cardionets_core.tasks.image_terms import add_images, metrics_of_images, no_images
from cardionets_core.tasks.latents import CINE
from cardionets_core.tasks.phenotype_sums import phenotype_targets

DRAWN = "drawn"
REFERENCES = ("unconditional", "shuffled", "mean_cine")
WATCHED = ("real", DRAWN)
LossOf = Callable[[Posterior, torch.Tensor], torch.Tensor]


def no_generation(preset: Preset) -> Sums:
    """The sums of no case; no module is run."""
    width = preset.cmr_width
    sums: Sums = {"loss": one(0.0), **no_images(DRAWN)}
    for kind in REFERENCES:
        sums |= no_images(kind)
        sums |= {f"gain_{kind}": one(0.0), f"gain_{kind}_squared": one(0.0)}
    for kind in WATCHED:
        moments = feature_moments(np.zeros((0, width)))
        sums |= {f"frechet/{kind}/{name}": value for name, value in moments.items()}
        sums |= {f"phenotype/{kind}/{name}": np.zeros(PHENOTYPES) for name in SUM_NAMES}
    return sums


def generation_sums(
    modules: Modules,
    site: SiteView,
    rows: np.ndarray,
    *,
    settings: DrawingSettings,
    seed: int,
    loss_of: LossOf,
) -> Sums:
    """Draw, compare and sum.

    Args:
        modules: all that ``generate`` trains and reads, in eval mode.
        site: the site.
        rows: int64 [R], held-out rows with ECG and cine, one a person; at least one.
        settings: how to draw.
        seed: of the noise.
        loss_of: diffusion loss of each row from posterior and condition.

    Returns:
        ``loss``; image sums of the drawn cines and of each reference; sums and squares of each reference's
        disadvantage in SSIM; moments of the CMR feature and regression sums [K] for real and drawn cines.
        A single person has no other whose ECG could be taken, a site without training cines no mean: there
        ``shuffled/n`` or ``mean_cine/n`` is 0.
    """
    sums = no_generation(preset_of(site.shape))
    condition_RP = conditions_of(modules, site, rows)
    # Cases are in random order, one a person: the next one's ECG is another person's, for every case.
    other_RP = condition_RP.roll(-1, dims=0)
    seeds = row_seeds(seed, rows, site=site.cohort.site)
    draw = partial(draw_cines, modules, settings=settings, device=site.device)
    mean_1FYX = mean_training_cine(site)
    features: dict[str, list[np.ndarray]] = {kind: [] for kind in WATCHED}
    begin = 0
    with torch.no_grad():
        for some, batch in site.batches(rows, keys=CINE, window=0, size=DRAWING_BATCH):
            part = slice(begin, begin + len(some))
            begin += len(some)
            drawn = draw(condition_RP[part], seeds=seeds[part])
            others = {"unconditional": draw(condition_RP[part], seeds=seeds[part], conditional=False)}
            if len(rows) > 1:
                others["shuffled"] = draw(other_RP[part], seeds=seeds[part])
            if mean_1FYX is not None:
                others["mean_cine"] = mean_1FYX.to(site.device).expand_as(drawn)
            _compare(sums, drawn, others, real_BFYX=cast(torch.Tensor, batch.cine_BFYX))
            for kind, cine_BFYX in (("real", batch.cine_BFYX), (DRAWN, drawn)):
                features[kind].append(modules["cmr_encoder"](cine_BFYX).double().cpu().numpy())
            sums["loss"] = sums["loss"] + float(_losses(modules, batch, condition_RP[part], loss_of).sum())
    _watch(sums, {kind: np.concatenate(parts) for kind, parts in features.items()}, modules, site, rows)
    return sums


def generation_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of (added) ``generation_sums``; empty without cases.

    ``ssim``, ``psnr`` (and ``_sd``), the same with ``_unconditional``, ``_shuffled`` and ``_mean_cine``;
    ``ssim_gain_shuffled`` and so on, the paired difference, with its standard error ``..._se``; ``loss``;
    ``frechet`` (two cases or more); ``phenotype_r_real`` and ``phenotype_r_drawn``, means over the columns in
    which both vary, and ``phenotype_r_drawn/24100`` and so on.
    """
    n = float(sums[f"{DRAWN}/n"][0])
    if n <= 0:
        return {}
    found = {"loss": float(sums["loss"][0]) / n, **metrics_of_images(sums, DRAWN)}
    for kind in REFERENCES:
        found |= {f"{name}_{kind}": value for name, value in metrics_of_images(sums, kind).items()}
        cases = float(sums[f"{kind}/n"][0])
        if cases > 0:
            gain = float(sums[f"gain_{kind}"][0]) / cases
            found[f"ssim_gain_{kind}"] = gain
            if cases > 1:
                spread = float(sums[f"gain_{kind}_squared"][0]) / cases - gain**2
                found[f"ssim_gain_{kind}_se"] = float(np.sqrt(max(spread, 0.0) / (cases - 1)))
    moments = {
        kind: {name: sums[f"frechet/{kind}/{name}"] for name in ("n", "Sf", "Sff")} for kind in WATCHED
    }
    distance = frechet_distance(moments["real"], moments[DRAWN])
    if np.isfinite(distance):
        found["frechet"] = distance
    read = {kind: {name: sums[f"phenotype/{kind}/{name}"] for name in SUM_NAMES} for kind in WATCHED}
    r_K = {kind: pearson(of_kind) for kind, of_kind in read.items()}
    columns = np.flatnonzero(
        measured_columns(read[DRAWN]) & np.isfinite(r_K["real"]) & np.isfinite(r_K[DRAWN])
    )
    if len(columns):
        for kind in WATCHED:
            found[f"phenotype_r_{kind}"] = float(r_K[kind][columns].mean())
            found |= {f"phenotype_r_{kind}/{FIRST_FIELD + int(k)}": float(r_K[kind][k]) for k in columns}
    return found


def _compare(
    sums: Sums, drawn: torch.Tensor, others: Mapping[str, torch.Tensor], *, real_BFYX: torch.Tensor
) -> None:
    add_images(sums, DRAWN, made_BFYX=drawn, real_BFYX=real_BFYX)
    own_B = case_ssim(drawn, real_BFYX)
    for kind, other in others.items():
        add_images(sums, kind, made_BFYX=other, real_BFYX=real_BFYX)
        gain_B = own_B - case_ssim(other, real_BFYX)
        sums[f"gain_{kind}"] = sums[f"gain_{kind}"] + float(gain_B.sum())
        sums[f"gain_{kind}_squared"] = sums[f"gain_{kind}_squared"] + float(gain_B.square().sum())


def _losses(modules: Modules, batch: Batch, condition_BP: torch.Tensor, loss_of: LossOf) -> torch.Tensor:
    tokenizer = cast(CmrTokenizer, modules["cmr_tokenizer"])
    return loss_of(tokenizer.encode(cast(torch.Tensor, batch.cine_BFYX)), condition_BP).double()


def _watch(
    sums: Sums, features: Mapping[str, np.ndarray], modules: Modules, site: SiteView, rows: np.ndarray
) -> None:
    """Moments of the features, and what the site's regressor reads from them."""
    target_RK = without_small_columns(
        phenotype_targets(site, rows, columns=PHENOTYPES),
        patient_R=site.cohort.row_patient[rows],
        minimum=site.smallest_cell,
    )
    regressor = fit_cmr_regressor(modules, site, width=features["real"].shape[1])
    for kind, feature_RD in features.items():
        sums |= {f"frechet/{kind}/{name}": value for name, value in feature_moments(feature_RD).items()}
        read = regression_sums(regressor.known(target_RK), regressor.read(feature_RD))
        sums |= {f"phenotype/{kind}/{name}": value for name, value in read.items()}


def mean_training_cine(site: SiteView) -> torch.Tensor | None:
    """Mean over the site's training cines, ``[1, F, Y, X]`` on the CPU; None without any."""
    rows = site.rows(CINE, "train")
    if not len(rows):
        return None

    def make() -> dict[str, torch.Tensor]:
        total = sum(
            cast(torch.Tensor, batch.cine_BFYX).double().sum(dim=0, keepdim=True).cpu()
            for _, batch in site.batches(rows, keys=CINE, window=0)
        )
        return {"mean_1FYX": (cast(torch.Tensor, total) / len(rows)).float()}

    size = f"{site.shape.cine_frames} frames of {site.shape.cine_pixels} pixels"
    return site.kept.of("mean-cine", {}, (), make, settings=size)["mean_1FYX"]
