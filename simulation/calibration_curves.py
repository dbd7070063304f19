"""Reliability of the screening probabilities on all members' test patients, before and after calibration.

Comes in: the run's checkpoints and cohorts. Goes out: rows, probabilities and labels in bins of the
probability, added over sites as the tasks add them.

Legend: D diseases, b bins of the probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.evaluation.calibration import ECE_BINS, expected_calibration_error
from cardionets_core.evaluation.sums import add_sums
from cardionets_core.tasks import SiteView
from cardionets_core.tasks.calibrate import UNCALIBRATED
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.seeds import derive_seed
from simulation.phase_end import phase_end

JOINED = 3
"""Bins of the calibration error that are joined to one of a curve."""
BINS = ECE_BINS // JOINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """One model's curve.

    Attributes:
        rows_Db: recordings in each bin.
        probability_Db: their mean probability, NaN in an empty bin.
        share_Db: share of them with the disease, NaN in an empty bin.
        error_D: expected calibration error over the finer bins.
    """

    rows_Db: np.ndarray
    probability_Db: np.ndarray
    share_Db: np.ndarray
    error_D: np.ndarray


def reliability_curves(
    study: Study, cohorts: Mapping[str, Cohort], *, folder: Path, external: frozenset[str]
) -> dict[str, Reliability]:
    """``before`` and, where the study calibrates, ``after``; empty where it does not screen.

    Args:
        study: that was run; its checkpoints lie in ``folder``.
        cohorts: by site.
        folder: of the run.
        external: sites that never trained; they are left out.
    """
    calibrated = phase_end(study, "calibrate", folder=folder)
    end = calibrated or phase_end(study, "screening", folder=folder)
    if end is None:
        return {}
    shape = shape_of(study.models)
    parts = {}
    for name, cohort in cohorts.items():
        if name not in external and len(cohort.rows(end.task.needs, "test", shape)):
            site = SiteView(
                cohort=cohort, shape=shape, device=torch.device("cpu"), kept=Kept(cohort=cohort.digest)
            )
            seed = derive_seed(study.seed, "evaluate", end.index, name)
            parts[name] = end.task.metric_sums(end.modules, site, split="test", seed=seed)
    if not parts:
        return {}
    sums = add_sums(parts)
    if calibrated is None:
        return {"before": _curve(sums, prefix="")}
    return {"before": _curve(sums, prefix=UNCALIBRATED), "after": _curve(sums, prefix="")}


def _curve(sums: Mapping[str, np.ndarray], *, prefix: str) -> Reliability:
    fine = {name: sums[f"{prefix}{name}"] for name in ("n", "bin_n", "bin_probability", "bin_label")}
    rows, probability, label = (
        fine[name].reshape(-1, BINS, JOINED).sum(axis=-1)
        for name in ("bin_n", "bin_probability", "bin_label")
    )
    some = np.where(rows > 0, rows, np.nan)
    return Reliability(
        rows_Db=rows,
        probability_Db=probability / some,
        share_Db=label / some,
        error_D=expected_calibration_error(fine),
    )
