"""What a study spends of its patients' privacy, as far as the coordinator can know it.

Comes in: the study, how many training patients each site told, and the rounds that it trained. Goes out: the
planned epsilon so far and at the end. A site's own ledger, which also knows its other studies, never leaves
the site; ``cardionets-client budget`` shows it there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.errors import CardioNetsError
from server.page.facts import RunFacts

HIDDEN = "its policy does not let it tell its number of patients"
BUDGET_S = 4.0
"""For the reckoning of one page; what is not done in it is done for the next one."""


def privacy_content(facts: RunFacts, *, within_s: float = BUDGET_S) -> dict[str, Any]:
    """Mechanism and, for each site, what is planned; JSON-ready.

    Args:
        facts: of the run.
        within_s: no reckoning begins later; what was reckoned before costs nothing.
    """
    privacy = facts.study.privacy
    content: dict[str, Any] = {
        "mechanism": privacy.mechanism,
        "secure": facts.study.secure_aggregation is not None,
        "deterministic": privacy.deterministic,
        "delta": privacy.delta,
        "epsilon": privacy.epsilon,
        "clip_norm": privacy.clip_norm,
        "accountant": privacy.accountant,
        "noise_multiplier": privacy.noise_multiplier,
        "sites": [],
    }
    if privacy.mechanism == "none":
        return content
    end = time.monotonic() + within_s
    text = facts.study.to_json()
    for row in sorted(facts.status.get("sites", ()), key=lambda row: str(row["site"])):
        if row.get("role") == "external":
            continue
        people = (row.get("patients") or {}).get("train")
        site: dict[str, Any] = {"site": row["site"], "patients": people, "why": ""}
        site |= {"so_far": None, "whole": None, "noise": None}
        if not people:
            site["why"] = HIDDEN if row.get("versions") else "not asked yet"
        elif time.monotonic() > end:
            site["why"] = "not reckoned yet"
        else:
            serves = row.get("phases") or {}
            counts = tuple(
                int(people) if serves.get(phase.title, "serves") == "serves" else 0
                for phase in facts.study.phases
            )
            try:
                noise, whole = _whole(text, counts)
                so_far = _so_far(text, counts, _rounds(facts, row["site"]), noise)
                site |= {"so_far": so_far, "whole": whole, "noise": noise}
            except CardioNetsError as error:
                site["why"] = error.what
        content["sites"].append(site)
    return content


def _rounds(facts: RunFacts, site: str) -> tuple[int, ...]:
    """Rounds that a site trained, by phase."""
    done = [0] * len(facts.study.phases)
    for entry in facts.history:
        if entry["phase"] < len(done):
            done[entry["phase"]] += any(
                row["site"] == site and row.get("status") == "trained" for row in entry.get("sites", ())
            )
    return tuple(done)


@lru_cache(maxsize=512)
def _whole(study_json: str, counts: tuple[int, ...]) -> tuple[float, float]:
    """Noise multiplier and epsilon of a site that takes part in all of the study."""
    # Loads torch, which the page of any other study does without.
    from cardionets_core.training.private_plan import epsilon_after, noise_of, phase_costs
    from server.phase_order import tasks_of

    study = Study.model_validate_json(study_json)
    costs = phase_costs(study, tasks_of(study), patients=counts)
    if not costs:
        return 0.0, 0.0
    noise = noise_of(study, costs)
    return noise, epsilon_after(study, costs, noise_multiplier=noise)


@lru_cache(maxsize=512)
def _so_far(study_json: str, counts: tuple[int, ...], rounds: tuple[int, ...], noise: float) -> float:
    from cardionets_core.training.private_plan import epsilon_after, phase_costs
    from server.phase_order import tasks_of

    study = Study.model_validate_json(study_json)
    costs = [
        replace(cost, rounds=rounds[cost.phase])
        for cost in phase_costs(study, tasks_of(study), patients=counts)
        if rounds[cost.phase]
    ]
    return epsilon_after(study, costs, noise_multiplier=noise) if costs else 0.0
