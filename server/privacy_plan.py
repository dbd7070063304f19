"""What a private study will spend at each site, before anything is sent (the coordinator's side of ``plan``).

Comes in: a study and how many training patients the sites have. Goes out: noise and epsilon of each, as the
sites' own ledgers will reckon them: both use ``training.private_plan``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.study import Study
from cardionets_core.errors import UsageError
from cardionets_core.tasks import Task
from cardionets_core.training.private_plan import PhaseCost, epsilon_after, noise_of, phase_costs

EXAMPLES = (50, 200, 1000, 5000)
"""Sizes of sites that are shown where none are given."""
NOT_MEASURED = "nothing is measured: neither losses nor metrics leave the sites"
NONE = "none: updates are not noised, and a curious coordinator may learn of patients from them"
_GIVEN = re.compile(r"([a-z0-9][a-z0-9-]{0,62})=([0-9]{1,9}(?:,[0-9]{1,9})*)")


def read_patients(given: Sequence[str], *, phases: int, sites: Collection[str] = ()) -> dict[str, list[int]]:
    """Training patients of sites by phase, from ``NAME=COUNT`` or ``NAME=COUNT,COUNT,...``.

    Args:
        given: as typed; one count stands for every phase, 0 for a phase that the site sits out.
        phases: of the study.
        sites: that are known; any name will do where none are.

    Raises:
        UsageError: names what cannot be read, or the site that is not known.
    """
    found: dict[str, list[int]] = {}
    for text in given:
        match = _GIVEN.fullmatch(text)
        counts = [int(each) for each in match[2].split(",")] if match else []
        if match is None or len(counts) not in (1, phases):
            raise UsageError(
                f"{text!r} does not say how many training patients a site has",
                where="--patients",
                remedy=f"give NAME=COUNT, or NAME=COUNT,... with one count for each of the {phases} phases",
            )
        if sites and match[1] not in sites:
            raise UsageError(
                f"there is no site {match[1]!r} in this workspace{did_you_mean(match[1], sites)}",
                where="--patients",
                remedy="name a site that is admitted: cardionets-server sites DIR lists them",
            )
        found[match[1]] = counts * phases if len(counts) == 1 else counts
    return found


def privacy_of(
    study: Study, tasks: Sequence[Task], *, patients: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """Mechanism, limits, and what each site spends.

    Args:
        study: the study.
        tasks: of its phases.
        patients: training patients of each site that serve each phase; some examples by default.
    """
    privacy = study.privacy
    if privacy.mechanism == "none":
        return {"mechanism": "none"}
    sizes = patients or {f"a site of {count}": [count] * len(tasks) for count in EXAMPLES}
    return {
        **privacy.model_dump(mode="json"),
        "measured": study.exact_sums_leave,
        "examples": not patients,
        "sites": [
            _site(study, name, phase_costs(study, tasks, patients=list(counts)))
            for name, counts in sorted(sizes.items(), key=lambda item: (item[1], item[0]))
        ],
    }


def privacy_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    if content["mechanism"] == "none":
        yield f"privacy: {NONE}"
        return
    aim = (
        f"epsilon at most {content['epsilon']:g}"
        if content["epsilon"] is not None
        else f"noise multiplier {content['noise_multiplier']:g}"
    )
    yield (
        f"privacy: dp_sgd for each patient · {aim} at delta {content['delta']:g} · "
        f"clip {content['clip_norm']:g} · accountant {content['accountant']}"
    )
    told = "losses and metrics leave in secret sums alone" if content["measured"] else NOT_MEASURED
    yield f"  each site finds its own noise; {told}"
    if content["deterministic"]:
        yield "  NOT PRIVATE: the noise follows from the public seed; real sites refuse this study"
    if content["examples"]:
        yield "  what it costs follows from a site's training patients; give them as --patients NAME=COUNT"
    for site in content["sites"]:
        yield (
            f"  {site['site']:20} epsilon {site['epsilon']:7.3f} · noise multiplier "
            f"{site['noise_multiplier']:.3f} · "
            + ", ".join(
                f"{phase['title']} {phase['steps']} step{'s' * (phase['steps'] != 1)} of "
                f"{100 * phase['sample_rate']:.3g} %"
                for phase in site["phases"]
            )
        )


def _site(study: Study, name: str, costs: Sequence[PhaseCost]) -> dict[str, Any]:
    noise = noise_of(study, costs)
    return {
        "site": name,
        "noise_multiplier": noise,
        "epsilon": epsilon_after(study, costs, noise_multiplier=noise),
        "phases": [
            {
                "phase": cost.phase,
                "task": cost.task,
                "title": study.phases[cost.phase].title,
                "patients": cost.patients,
                "rounds": cost.rounds,
                "steps": cost.whole.steps,
                "sample_rate": cost.part.sample_rate,
                "noise_multiplier": cost.part.scale * noise,
            }
            for cost in costs
        ],
    }
