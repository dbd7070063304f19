"""A model measured on a site's held-out patients (steps 5 to 8 of the walk).

Comes in: modules that are filled and a split. Goes out: metric sums and the rows behind them, not yet past
the gate. A site that is asked to train may be asked to measure the model that came, first: ``measure_first``
does it on copies, so that the training begins from the same bytes either way.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cardionets_core.data.cohort import Split
from cardionets_core.data.pseudonym import keyed_digest, load_key
from cardionets_core.errors import CardioNetsError, DisclosureRefusedError, TooFewPatientsError
from cardionets_core.exchange.messages import MEASURED, PERSONAL
from cardionets_core.tasks import SiteView
from cardionets_core.training.seeds import derive_seed
from client.work import Work


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
    work: Work, modules: Mapping[str, torch.nn.Module], view: SiteView, *, split: Split
) -> Measurement:
    """Metric sums over a split; where the site has a model of its own, those of both.

    Args:
        work: the order.
        modules: that are measured.
        view: the site's data.
        split: whose patients.

    Raises:
        TooFewPatientsError: fewer held-out patients than the policy asks for.
    """
    task, site = work.task, work.site
    rows = view.rows(task.needs, split)
    patients, fewest = site.cohort.patients(rows), site.config.policy.minimum_cell
    if patients < fewest:
        raise TooFewPatientsError(
            f"{patients} held-out patients in {split}; the policy asks for {fewest}",
            where="site.yaml: policy.minimum_cell",
        )
    # With the draws known, a thousand replicates are a thousand equations for each person's own value.
    draws = keyed_digest(load_key(site.config.folders.secret), "bootstrap", site.name)
    view = replace(view, draws=draws)
    seed = derive_seed(work.study.seed, "evaluate", work.order.name.phase, site.name)
    task.prepare_modules(modules)
    sums = dict(task.metric_sums(modules, view, split=split, seed=seed))
    if work.rule.measures_personal(task):
        own, mine = dict(sums), work.personal.for_measuring(task, modules)
        if mine is not None:
            task.prepare_modules(mine)
            own = task.metric_sums(mine, view, split=split, seed=seed)
        sums |= {PERSONAL + name: value for name, value in own.items()}
    return Measurement(sums=sums, rows=rows)


def measure_first(work: Work, view: SiteView) -> Measurement:
    """Metric sums of the model that came with an order to train, on the validation patients.

    Args:
        work: the order; its modules are left as they are.
        view: must not be the one that is trained with: what it keeps is named by the modules' first values.
        phase: index of the phase.

    Returns:
        The measurement; a refusal is its code, since the site can train all the same.
    """
    try:
        found = measure(work, copy.deepcopy(dict(work.modules)), view, split="validation")
    except CardioNetsError as error:
        return Measurement(code=error.code)
    if not all(np.isfinite(value).all() for value in found.sums.values()):
        # The gate would stop the whole reply; an order to measure alone would have ended with this code.
        return Measurement(code=DisclosureRefusedError.code)
    return Measurement(sums={MEASURED + name: value for name, value in found.sums.items()}, rows=found.rows)
