"""What IT reads before it says yes: facts of code and study as plain lines.

Comes in: JSON-ready facts. Goes out: text. Nothing is computed here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from cardionets_core.config.changes import change_words

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
MOST_CHANGES = 40
"""Changed files that are listed; the option for JSON lists all of them."""


def code_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one bundle."""
    yield f"CODE {facts['name']} {facts['version']}"
    yield f"  SHA-256 {facts['sha256']}"
    yield from _withdrawn_lines(facts["withdrawn"])
    yield f"  {facts['files']} files · {facts['lines']:,} lines · {facts['bytes']:,} bytes"
    yield f"  a site runs {facts['client_app']}"
    if facts["dependencies"]:
        asked = ", ".join(facts["dependencies"])
        yield f"  asks to install {asked}: a site never installs anything for a bundle"
    if facts["further_files"]:
        yield f"  beside its packages: {', '.join(facts['further_files'][:MOST_CHANGES])}"
    if facts["identical_to_installed"]:
        yield "  identical, file by file, to the CardioNets that is installed here"
    else:
        yield "  differs from the CardioNets that is installed here:"
        yield from _changes(facts["differs_from_installed"])
    if not facts["last_approved"]:
        yield "  no other code is approved here"
    elif facts["since_last_approved"]:
        yield f"  since the last approved code ({facts['last_approved'][:16]}):"
        yield from _changes(facts["since_last_approved"])
    else:
        yield f"  the same files as the last approved code ({facts['last_approved'][:16]})"


def study_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one study."""
    yield f"STUDY {facts['name']} · preset {facts['preset']} · seed {facts['seed']}"
    yield f"  digest {facts['digest']}"
    if "problem" in facts:
        yield f"  cannot be approved here [{facts['problem']['code']}]: {facts['problem']['what']}"
        return
    yield from _withdrawn_lines(facts["withdrawn"])
    options = ", ".join(f"{key} {value}" for key, value in facts["strategy_options"].items())
    yield f"  replies become the next model by {facts['strategy']}{f' ({options})' if options else ''}"
    yield f"  at least {facts['minimum_sites']} sites · updates travel as {facts['wire_precision']}"
    yield from _privacy_lines(facts["privacy"])
    yield from _budget_lines(facts["budget"])
    yield from _secure_lines(facts["secure_aggregation"])
    yield from _measured_lines(facts)
    yield f"  leaves before each phase: role, versions, digests of models; {_census_words(facts['census'])}"
    for number, phase in enumerate(facts["phases"], start=1):
        yield from _phase_lines(number, phase, is_measured=facts["is_measured"])
    if not facts["last_approved"]:
        yield "  no other study is approved here"
    else:
        yield f"  since the last approved study ({facts['last_approved'][:16]}):"
        for change in facts["since_last_approved"]:
            yield f"    {change_words(change['key'], change['old'], change['new'])}"


def record_lines(decisions: list[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of what is approved."""
    if not decisions:
        yield "nothing is approved on this site"
    for said in decisions:
        yield f"approved {said['kind']:5} {said['digest']} · {_when(said)}"


def _withdrawn_lines(said: Mapping[str, Any] | None) -> Iterator[str]:
    if said is not None:
        yield f"  was approved here, and withdrawn on {_when(said)}"


def _when(said: Mapping[str, Any]) -> str:
    """Moment, account and note of a decision."""
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(said["time_s"]))
    return f"{day} by {said['who']}" + (f" · {said['note']}" if said["note"] else "")


def _phase_lines(number: int, phase: Mapping[str, Any], *, is_measured: bool) -> Iterator[str]:
    trains, reads = (", ".join(phase[key]) or "nothing" for key in ("trains", "reads"))
    permitted = f"permitted here: {phase['permitted']}"
    yield f"  phase {number} {phase['title']} · {phase['rounds']} round(s) · {permitted}"
    yield f"    {phase['kind']} · trains {trains} · reads {reads} · needs {' + '.join(phase['needs'])}"
    parts = {"of updates": phase["update_bytes"], "of sums": phase["sum_bytes"]}
    leaves = " + ".join(f"{count:,} bytes {what}" for what, count in parts.items() if count) or "nothing"
    measured = f"; when measured {phase['metric_sum_bytes']:,} bytes of sums" if is_measured else ""
    yield f"    leaves a round: {leaves}{measured}"


def _privacy_lines(privacy: Mapping[str, Any]) -> Iterator[str]:
    if privacy["mechanism"] == "none":
        yield "  no differential privacy: whoever holds the model, or sees this hospital's updates, may"
        yield "    learn of single patients"
        return
    delta = f"at delta {privacy['delta']:g}"
    if privacy["epsilon"] is not None:
        spent = f"epsilon at most {privacy['epsilon']:g} {delta}, of the whole study"
    else:
        spent = (
            f"noise of {privacy['noise_multiplier']:g} times the clip, and no\n"
            f"    epsilon of the study's own: it follows {delta} from rounds and patients, up to your\n"
            "    policy.privacy.maximum_epsilon"
        )
    yield f"  differential privacy for each training patient: {spent}"
    reckoned = f"clip_norm {privacy['clip_norm']:g} · reckoned by {privacy['accountant']}"
    yield f"    {reckoned} · what it means: docs/privacy.md"
    if privacy["deterministic"]:
        yield "    NOT PRIVATE: the noise follows from the study's public seed and hides nothing"


def _budget_lines(budget: Mapping[str, Any] | None) -> Iterator[str]:
    """What is left of the site's limit, and whether the study fits into it."""
    if budget is None:
        return
    if "problem" in budget:
        problem = budget["problem"]
        yield f"  how much of this site's limit {budget['limit']:g} is left cannot be told"
        yield f"    [{problem['code']}]: {problem['what']}"
        return
    left = f"  this site has {budget['left']:.3f} of its limit {budget['limit']:g} left"
    if budget["after"] is not None:
        needs = f"with all of this study {budget['after']:.3f} would be spent"
    elif budget["asked"] is not None:
        needs = f"this study may need up to {budget['asked']:g}"
    else:
        yield f"{left}; what this study needs follows from your patients:"
        yield "    `cardionets-client prepare` first, then this command tells it"
        return
    if budget["enough"]:
        yield f"{left}; {needs}: enough"
        return
    yield f"{left}; {needs}:"
    yield "    it may not be finished here (raise policy.privacy.maximum_epsilon in site.yaml, if the"
    yield "    hospital agrees, or ask the coordinator for a smaller epsilon or fewer rounds)"


def _measured_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts["is_measured"]:
        yield "  nothing is measured here: neither losses nor metrics leave this hospital, since no noise"
        yield "    hides them (docs/privacy.md)"
        return
    every = facts["evaluated_every_rounds"]
    yield f"  measured on held-out patients every {every} round(s), and on test patients at each phase's end"


def _secure_lines(secure: Mapping[str, Any]) -> Iterator[str]:
    if not secure:
        yield "  no secure aggregation: the coordinator sees what this hospital sends by itself, not only"
        yield "    sums over hospitals"
        return
    yield (
        f"  secure aggregation: the coordinator sees sums over at least {secure['threshold']} of these "
        f"{len(secure['sites'])} hospitals, and no"
    )
    yield "    hospital's own update; compare the keys with them by telephone"
    for site, key in secure["sites"].items():
        yield f"    {site:24} {key}"


def _census_words(census: Mapping[str, Any] | None) -> str:
    """What a census tells of sizes; its counts are exempt from the smallest cell (docs/what-leaves.md)."""
    if census is not None and not census["cohort_sizes"]:
        return "no counts, as policy.cohort_sizes says"
    form = "exact or rounded" if census is None else "exact"
    if census is not None and census["count_rounding"] > 1:
        form = f"as multiples of {census['count_rounding']}"
    return (
        "and counts of\n    patients by split, recordings by kind and refusals by reason, "
        f"{form}, also below\n    policy.minimum_cell; policy.cohort_sizes: false keeps them here"
    )


def _changes(changes: list[Mapping[str, Any]]) -> Iterator[str]:
    for change in changes[:MOST_CHANGES]:
        yield f"    {SIGNS[change['kind']]} {change['path']} (+{change['plus']} -{change['minus']} lines)"
    if len(changes) > MOST_CHANGES:
        yield f"    and {len(changes) - MOST_CHANGES} more; --format json lists them, --diff shows them"
