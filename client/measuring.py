"""A model measured on a site's held-out patients (steps 5 to 8 of the walk).

Comes in: modules that are filled and a split. Goes out: metric sums and the rows behind them, not yet past
the gate. A site that is asked to train may be asked to measure the model that came, first: ``measure_first``
does it on copies, so that the training begins from the same bytes either way.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Split
from cardionets_core.errors import CardioNetsError, DisclosureRefusedError, TooFewPatientsError
from cardionets_core.exchange.messages import MEASURED
from cardionets_core.tasks import SiteView, Task
from cardionets_core.training.seeds import derive_seed
from client.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured, or why it was not.

    Attributes:
        sums: metric sums.
        rows: the held-out rows behind them; None where nothing was measured.
        code: why not; else empty.
    """

    sums: Mapping[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray | None = None
    code: str = ""


def measure(
    site: Site,
    study: Study,
    task: Task,
    modules: Mapping[str, torch.nn.Module],
    view: SiteView,
    *,
    phase: int,
    split: Split,
) -> Measurement:
    """Metric sums over a split.

    Raises:
        TooFewPatientsError: fewer held-out patients than the policy asks for.
    """
    rows = view.rows(task.needs, split)
    patients, fewest = site.cohort.patients(rows), site.config.policy.minimum_cell
    if patients < fewest:
        raise TooFewPatientsError(
            f"{patients} held-out patients in {split}; the policy asks for {fewest}",
            where="site.yaml: policy.minimum_cell",
        )
    seed = derive_seed(study.seed, "evaluate", phase, site.name)
    task.prepare_modules(modules)
    return Measurement(sums=task.metric_sums(modules, view, split=split, seed=seed), rows=rows)


def measure_first(
    site: Site,
    study: Study,
    task: Task,
    modules: Mapping[str, torch.nn.Module],
    view: SiteView,
    *,
    phase: int,
) -> Measurement:
    """Metric sums of the model that came with an order to train, on the validation patients.

    Args:
        site: that measures.
        study: of the order.
        task: of the phase.
        modules: are left as they are.
        view: must not be the one that is trained with: what it keeps is named by the modules' first values.
        phase: index of the phase.

    Returns:
        The measurement; a refusal is its code, since the site can train all the same.
    """
    try:
        found = measure(
            site, study, task, copy.deepcopy(dict(modules)), view, phase=phase, split="validation"
        )
    except CardioNetsError as error:
        return Measurement(code=error.code)
    if not all(np.isfinite(value).all() for value in found.sums.values()):
        # The gate would stop the whole reply; an order to measure alone would have ended with this code.
        return Measurement(code=DisclosureRefusedError.code)
    return Measurement(sums={MEASURED + name: value for name, value in found.sums.items()}, rows=found.rows)
