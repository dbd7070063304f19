"""What the drawn cines of a finished study show of the heart: the left ventricle's area, and pictures.

Comes in: the run's checkpoints and cohorts. Goes out: correlations for ``result.json`` and a picture. Only a
simulation can ask this: its meter learns from drawn masks (``lv_area.py``), and its patients are drawn.

Legend: R rows, F frames, Y rows and X columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.tasks import SiteView
from cardionets_core.tasks.cases import choose_cases, conditions_of, row_seeds
from cardionets_core.tasks.drawing import draw_cines, preset_of
from cardionets_core.tasks.generate import Generate
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.seeds import derive_seed
from simulation.lv_area import LvMeter, train_lv_meter
from simulation.phase_end import phase_end

KINDS = ("drawn", "shuffled", "unconditional")
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
        area and the table's end-diastolic volume (``edv_r``); ``area_r_meter`` is the meter's own r with
        masks. And the cases.
    """
    end = phase_end(study, Generate.name, folder=folder)
    if end is None:
        return {}, []
    task = cast(Generate, end.task)
    cases = [
        drawn
        for name in sorted(cohorts)
        if (drawn := _draw(task, end.modules, cohorts[name], study=study, most=most)) is not None
    ]
    if not cases:
        return {}, []
    meter = train_lv_meter(shape_of(study.preset), seed=study.seed)
    populations = {"members": [case for case in cases if case.site not in external]}
    populations |= {case.site: [case] for case in cases if case.site in external}
    measured: dict[str, Any] = {"area_r_meter": meter.agreement}
    for population, chosen in populations.items():
        if chosen:
            measured[population] = _measure(meter, chosen)
    return measured, cases


def _draw(
    task: Generate, modules: Mapping[str, torch.nn.Module], cohort: Cohort, *, study: Study, most: int
) -> DrawnCases | None:
    shape, device = shape_of(study.preset), torch.device("cpu")
    site = SiteView(cohort=cohort, shape=shape, device=device, kept=Kept(cohort=cohort.digest))
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


def _measure(meter: LvMeter, cases: list[DrawnCases]) -> dict[str, Any]:
    real = np.concatenate([meter.areas(case.real_RFYX).max(axis=1) for case in cases])
    volume = np.concatenate([case.lvedv_ml for case in cases])
    known = np.isfinite(volume)
    found: dict[str, Any] = {"n": len(real), "edv_r_real": _r(real[known], volume[known])}
    for kind in KINDS:
        area = np.concatenate([meter.areas(case.made[kind]).max(axis=1) for case in cases])
        found[kind] = {
            "area_r": _r(area, real),
            "edv_r": _r(area[known], volume[known]),
            "area_mm2": float(area.mean()),
        }
    return found


def _r(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 3 or not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])
