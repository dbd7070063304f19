"""What a private study would spend at this site if it ran to its end, for whoever is to approve it (row 0).

Comes in: a study, the site's document, its ledger and, where the data is prepared, its patients. Goes out:
JSON-ready facts. The reckoning is that of the ledger, over what was spent before and every round
that is still to come. It reserves and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import Study
from cardionets_core.data.cache import open_cache
from cardionets_core.errors import CardioNetsError
from cardionets_core.privacy.accountant import Mechanism, Part, epsilon_of
from cardionets_core.privacy.ledger import EXCESS
from cardionets_core.privacy.ledger_lines import Entry
from cardionets_core.tasks import task_of
from cardionets_core.training.private_plan import check_private, phase_costs
from client.ending import error_json
from client.site import Site
from client.spending import check_ledger, ledger_path, noise_here, open_ledger, serving_patients


def forecast(study: Study, config: SiteConfig) -> dict[str, Any] | None:
    """What is left at this site, and what would be spent after the study.

    Args:
        study: that waits.
        config: what the hospital permits.

    Returns:
        ``limit``, ``delta``, ``spent`` (reserved counts), ``left``, ``asked`` (the study's own epsilon, or
        None), ``after`` (None where the data is not prepared, so that the patients are not known) and
        ``enough`` (None where that cannot be told); or a ``problem`` of the ledger. None where the study has
        no epsilon, or the site trains nothing.
    """
    policy = config.policy.privacy
    if study.privacy.mechanism == "none" or config.policy.role == "external":
        return None
    limit, delta = policy.maximum_epsilon, policy.maximum_delta
    try:
        check_ledger(config)
        entries = open_ledger(config).entries() if ledger_path(config).exists() else []
    except CardioNetsError as error:
        return {"limit": limit, "delta": delta, "problem": error_json(error)}
    before = [entry.charge.mechanism for entry in entries]
    spent = epsilon_of(before, delta=delta)
    left, asked = max(0.0, limit - spent), study.privacy.epsilon
    try:
        to_come = _to_come(study, config, entries)
        after = epsilon_of([*before, *to_come], delta=delta, accountant=study.privacy.accountant)
    except CardioNetsError:
        after = None
    enough: bool | None = True if asked is not None and asked <= left else None
    if after is not None:
        enough = after <= limit * (1.0 + EXCESS)
    found = {"limit": limit, "delta": delta, "spent": spent, "left": left}
    return {**found, "asked": asked, "after": after, "enough": enough}


def _to_come(study: Study, config: SiteConfig, entries: Sequence[Entry]) -> list[Mechanism]:
    """What every round that was not answered yet would cost.

    Raises:
        CardioNetsError: the data is not prepared, or the study cannot be made private.
    """
    tasks = [task_of(phase, study) for phase in study.phases]
    check_private(study, tasks)
    site = Site(config=config, cohort=open_cache(config, check="quick"), device=torch.device("cpu"))
    patients = [serving_patients(site, task, study) for task in tasks]
    noise = noise_here(study, tasks, patients, entries)
    charged = {(e.charge.phase, e.charge.round) for e in entries if e.charge.study == study.digest}
    found = []
    for cost in phase_costs(study, tasks, patients=patients):
        rounds = cost.rounds - sum(phase == cost.phase for phase, _ in charged)
        part = Part(sample_rate=cost.part.sample_rate, steps=cost.part.steps * max(0, rounds),
                    scale=cost.part.scale)  # fmt: skip
        found.append(part.with_noise(noise))
    return found
