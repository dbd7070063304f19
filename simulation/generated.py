"""What the drawn cines of a finished study show of the heart: the left ventricle's area, and their likeness.

Comes in: the run's checkpoints and cohorts. Goes out: numbers for ``result.json``, and cines for a picture.
Only a simulation can ask this: its meter learns from drawn masks (``lv_area.py``), its patients are drawn,
and it may lay the training cines of all members together for their mean.

Legend: R rows, F frames, Y rows and X columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.evaluation.images import case_ssim
from cardionets_core.tasks import SiteView
from cardionets_core.tasks.cases import choose_cases, conditions_of, row_seeds
from cardionets_core.tasks.drawing import draw_cines, preset_of
from cardionets_core.tasks.generate import Generate
from cardionets_core.tasks.generation_sums import mean_training_cine
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.latents import CINE
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.seeds import derive_seed
from simulation.lv_area import LvMeter, train_lv_meter
from simulation.phase_end import PhaseEnd, phase_end

KINDS = ("drawn", "shuffled", "unconditional")
MEAN = "mean_cine"
LVEDV = 0  # column of field 24100
SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnCases:
    """Held-out cases of one site with what was drawn for them.

    Attributes:
        site: its name.
        real_RFYX: their own cines.
        made: kind to cines ``[R, F, Y, X]``: from the own ECG, from another person's, from none.
        lvedv_ml: end-diastolic volume in the hospital's table, float64 [R], NaN where missing.
    """

    site: str
    real_RFYX: torch.Tensor
    made: Mapping[str, torch.Tensor]
    lvedv_ml: np.ndarray


def study_drawings(
    study: Study, cohorts: Mapping[str, Cohort], *, folder: Path, external: frozenset[str], most: int = 64
) -> tuple[dict[str, Any], list[DrawnCases]]:
    """Draw for held-out patients and measure; empty where the study draws nothing.

    Args:
        study: the study that was run; its checkpoints lie in ``folder``.
        cohorts: by site.
        folder: of the run.
        external: sites that never trained.
        most: people of each site.

    Returns:
        For ``result.json``, by population (``members``, and each external site): ``n`` and, for each of
        ``KINDS``, Pearson's r of the end-diastolic area of drawn and real cine (``area_r``), and of the drawn
        area and the table's end-diastolic volume (``edv_r``), and the mean ``ssim`` with the real cine;
        ``area_r_meter`` is the meter's own r with masks. ``mean_cine`` has the ``ssim`` of the mean of all
        members' training cines, and the paired ``gain`` of the drawn ones over it, with its standard error
        ``gain_se``. And the cases.
    """
    end = phase_end(study, Generate.name, folder=folder)
    if end is None:
        return {}, []
    cases = [
        drawn
        for name in sorted(cohorts)
        if (drawn := draw_cases(end, cohorts[name], study=study, most=most)) is not None
    ]
    if not cases:
        return {}, []
    meter = train_lv_meter(shape_of(study.models), seed=study.seed)
    populations = {"members": [case for case in cases if case.site not in external]}
    populations |= {case.site: [case] for case in cases if case.site in external}
    measured: dict[str, Any] = {"area_r_meter": meter.agreement}
    members = [cohort for name, cohort in sorted(cohorts.items()) if name not in external]
    mean_1FYX = members_mean_cine(members, shape_of(study.models))
    for population, chosen in populations.items():
        if chosen:
            measured[population] = measure_drawings(meter, chosen, mean_1FYX)
    return measured, cases


def members_mean_cine(cohorts: Sequence[Cohort], shape: InputShape) -> torch.Tensor:
    """Mean over the training cines of some sites, float32 ``[1, F, Y, X]`` in -1..1; each cine counts once.

    Raises:
        ValueError: there is none.
    """
    total, count = torch.zeros(1, dtype=torch.float64), 0
    for cohort in cohorts:
        site = _view(cohort, shape)
        mean_1FYX = mean_training_cine(site)
        if mean_1FYX is not None:
            rows = len(site.rows(CINE, "train"))
            total, count = total + rows * mean_1FYX.double(), count + rows
    if not count:
        raise ValueError("no site has a training cine")
    return (total / count).float()


def _view(cohort: Cohort, shape: InputShape) -> SiteView:
    return SiteView(cohort=cohort, shape=shape, device=torch.device("cpu"), kept=Kept(cohort=cohort.digest))


def draw_cases(end: PhaseEnd, cohort: Cohort, *, study: Study, most: int) -> DrawnCases | None:
    """Draw for held-out people of a site, one row each; None where there are not two of them.

    Args:
        end: of a phase ``generate``.
        cohort: the site's.
        study: that was run.
        most: people.
    """
    task, modules = cast(Generate, end.task), end.modules
    shape = shape_of(study.models)
    site = _view(cohort, shape)
    device = site.device
    seed = derive_seed(study.seed, "drawings", cohort.site)
    rows = choose_cases(cohort, site.rows(task.needs, "test"), most=most, seed=seed)
    if len(rows) < 2:
        return None
    settings = task.drawing(preset_of(shape))
    condition = conditions_of(modules, site, rows)
    seeds = row_seeds(seed, rows, site=cohort.site)
    made = {
        "drawn": draw_cines(modules, condition, settings=settings, seeds=seeds, device=device),
        "shuffled": draw_cines(modules, condition.roll(-1, 0), settings=settings, seeds=seeds, device=device),
        "unconditional": draw_cines(
            modules, condition, settings=settings, seeds=seeds, device=device, conditional=False
        ),
    }
    batch = cohort.batch(rows, keys=frozenset({"cine", "phenotypes"}), shape=shape, window=0)
    assert batch.cine_BFYX is not None and batch.phenotypes_BK is not None  # both were asked for
    return DrawnCases(
        site=cohort.site,
        real_RFYX=batch.cine_BFYX,
        made=made,
        lvedv_ml=batch.phenotypes_BK[:, LVEDV].double().numpy(),
    )


def measure_drawings(meter: LvMeter, cases: Sequence[DrawnCases], mean_1FYX: torch.Tensor) -> dict[str, Any]:
    """One population's part of ``study_drawings``; ``mean_1FYX`` of ``members_mean_cine``."""
    real = np.concatenate([meter.areas(case.real_RFYX).max(axis=1) for case in cases])
    volume = np.concatenate([case.lvedv_ml for case in cases])
    known = np.isfinite(volume)
    found: dict[str, Any] = {"n": len(real), "edv_r_real": _r(real[known], volume[known])}
    ssim: dict[str, np.ndarray] = {}
    for kind in KINDS:
        ssim[kind] = _ssim([(case.made[kind], case.real_RFYX) for case in cases])
        area = np.concatenate([meter.areas(case.made[kind]).max(axis=1) for case in cases])
        found[kind] = {
            "area_r": _r(area, real),
            "edv_r": _r(area[known], volume[known]),
            "area_mm2": float(area.mean()),
            "ssim": float(ssim[kind].mean()),
        }
    mean = _ssim([(mean_1FYX.expand_as(case.real_RFYX), case.real_RFYX) for case in cases])
    gain = ssim["drawn"] - mean
    found[MEAN] = {
        "ssim": float(mean.mean()),
        "gain": float(gain.mean()),
        "gain_se": float(gain.std(ddof=1) / np.sqrt(len(gain))),
    }
    return found


def _ssim(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> np.ndarray:
    return np.concatenate([case_ssim(made, real).numpy() for made, real in pairs])


def _r(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 3 or not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])
