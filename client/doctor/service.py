"""Which phases can this site serve, with how many people in each split?

Comes in: the site's document and its listing. Goes out: split sizes from the cache, or before ``prepare``
from the listing by the same keyed hash; minimum counts; a word for every phase. Makes no key and no cache.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from cardionets_core.config.generation import parts_of
from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import open_cache, summary
from cardionets_core.data.cohort import SPLITS, Cohort
from cardionets_core.data.pairs import pair_visits
from cardionets_core.data.pseudonym import load_key
from cardionets_core.data.records import Recording
from cardionets_core.data.split import split_of
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import CardioNetsError, UnknownNameError
from cardionets_core.tasks import TASKS, Task, make_task
from cardionets_core.tasks.short_axis import SHORT_AXIS, VIEW
from client.doctor.findings import Findings, Notice
from client.site import Site, serving_role

CAN_BE_SERVED = "can be served"
NOT_PERMITTED = "phase-not-permitted"


def open_cohort(config: SiteConfig) -> tuple[Cohort | None, list[CardioNetsError]]:
    """The site's cache, or why it cannot be used."""
    try:
        return open_cache(config), []
    except CardioNetsError as error:
        return None, [error]


def check_policy(config: SiteConfig) -> Findings:
    """Phases of the policy that do not exist."""
    unknown = [name for name in config.policy.phases if name not in TASKS]
    if not unknown:
        return Findings()
    return Findings(
        problems=[
            UnknownNameError(
                f"the policy permits phases that do not exist: {', '.join(unknown)}",
                where="site.yaml: policy.phases",
                remedy=f"the phases are: {', '.join(sorted(TASKS))}",
            )
        ]
    )


def check_phases(config: SiteConfig, cohort: Cohort, shape: InputShape) -> Findings:
    """For every phase, whether the site can serve it, or the code for which it cannot."""
    findings = Findings()
    # Counting rows needs no device, so a missing GPU does not hide what the data could serve.
    site = Site(config=config, cohort=cohort, device=torch.device("cpu"))
    for name in TASKS:
        reason: CardioNetsError | None = None
        for task in _kinds(name):
            try:
                serving_role(site, task, shape)
            except CardioNetsError as error:
                reason = reason or error
            else:
                reason = None
                break
        findings.facts[name] = CAN_BE_SERVED if reason is None else reason.code
        if reason is not None and name in config.policy.phases:
            findings.problems.append(reason)
    return findings


def _kinds(name: str) -> list[Task]:
    """What a study may ask of a phase: as it is by default, of the short axis, of the earlier generation."""
    usual = make_task(name, {})
    found = [usual, make_task(name, {}, parts_of("cardiacnets", {}))]
    return [*found, make_task(name, {VIEW: SHORT_AXIS})] if VIEW in usual.defaults else found


def phases_without_cache(config: SiteConfig, code: str) -> dict[str, str]:
    """What is said of the phases while there is no cache: only the policy is known."""
    return {name: code if name in config.policy.phases else NOT_PERMITTED for name in TASKS}


def check_splits(config: SiteConfig, cohort: Cohort | None, recordings: list[Recording]) -> Findings:
    """People and recordings of each split; from the cache, the listing, or the shares of the document."""
    if cohort is not None:
        counts = summary(cohort)
        splits = {name: dict(counts[name]) for name in SPLITS}
        facts: dict[str, Any] = {"from": "cache", "splits": splits}
    else:
        facts = _from_listing(config, recordings)
    findings = Findings(facts=facts)
    if "expected" in facts["from"]:
        return findings
    for name, fewest in (("validation", config.policy.minimum_cell), ("test", config.policy.minimum_cell)):
        patients = facts["splits"][name]["patients"]
        if patients < fewest:
            findings.notices.append(
                Notice(
                    what=f"{patients} patients in {name}; the policy asks for {fewest} behind any metric, so "
                    f"no metric of {name} leaves this site",
                    remedy="nothing, if that is meant; else see prepare.split and policy.minimum_cell",
                )
            )
    return findings


def _from_listing(config: SiteConfig, recordings: list[Recording]) -> dict[str, Any]:
    people = {recording.patient for recording in recordings}
    share = config.prepare.split
    try:
        key = load_key(config.folders.secret)
    except CardioNetsError:
        wanted = {"validation": share.validation, "test": share.test}
        wanted["train"] = 1 - sum(wanted.values())
        return {
            "from": "expected shares: the key that decides is made by prepare",
            "splits": {name: {"patients": round(len(people) * wanted[name])} for name in SPLITS},
        }
    counts: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    seen: set[str] = set()
    for visit in pair_visits(recordings, key=key):
        side = SPLITS[split_of(key, visit.pseudonym, validation=share.validation, test=share.test)]
        counts[side]["patients"] += visit.pseudonym not in seen
        counts[side]["recordings"] += len(visit.ecgs)
        counts[side]["cines"] += len(visit.cines)
        counts[side]["pairs"] += bool(visit.ecgs and visit.cines)
        seen.add(visit.pseudonym)
    keys = ("patients", "recordings", "cines", "pairs")
    return {
        "from": "listing: nothing was read, so some may still be left out",
        "splits": {name: {key: counts[name][key] for key in keys} for name in SPLITS},
    }
