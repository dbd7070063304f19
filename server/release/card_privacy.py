"""What the model card says of privacy and of the memorisation test (step 14 of the walk).

Comes in: the content of ``result.json``. Goes out: lines of Markdown. It tells what the study asked for and
what its history shows; whether a release may be made is ``conditions``' to judge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS
from server.release.card_tables import count, interval, last_test, number

Content = Mapping[str, Any]
_VIEW_WORDS = {LONG_AXIS: "", SHORT_AXIS: "Short axis: "}
CLOSED = ("standardise", "prevalence", "logistic", "probe", "calibrate", "memorisation")
"""Tasks whose replies are sums and not steps."""


def privacy_lines(content: Content, *, spent: Mapping[str, float]) -> list[str]:
    """Mechanism, epsilon and delta, and secure aggregation; and what neither of them covers.

    Args:
        content: of ``result.json``.
        spent: site to the epsilon that its own budget says.
    """
    study = content["study"]
    told = [f"- {site} says that it spent epsilon {spent[site]:.3g}" for site in sorted(spent)]
    return [*_mechanism(study), *told, *_secure(study), *_uncovered(study)]


def memorisation_lines(content: Content, *, released: Collection[str]) -> list[str]:
    """The verdict and what it follows from.

    Args:
        content: of ``result.json``.
        released: views whose generator is among the modules.
    """
    found = {view: last_test(content, "memorisation", view=view)["pooled"] for view in _VIEW_WORDS}
    made = [view for view, pooled in found.items() if "passes" in pooled]
    if not made:
        words = "It was not made: nothing is known of whether drawn cines copy training cases."
        return [words] if released else ["There is no generator in this model, and nothing to test."]
    lines = [] if released else ["There is no generator in this model.", ""]
    for view in released:
        if view not in made:
            lines += [f"{_VIEW_WORDS[view]}It was not made for this generator.", ""]
    for view in made:
        lines += [*_verdict_lines(found[view], words=_VIEW_WORDS[view]), ""]
    return [
        *lines,
        "A model that passes is not thereby private: the test finds copies, not everything that can be "
        "learned of a person.",
    ]


def _verdict_lines(found: Mapping[str, Any], *, words: str) -> list[str]:
    share, low, high = (
        found.get(name) for name in ("training_share", "training_share_low", "training_share_high")
    )
    return [
        f"**{words}{verdict_of(found)}.** Asked in the generator's latent space, on "
        f"{count(found.get('n_patients'))} held-out people:",
        "",
        f"- nearest to a training case are {number(share)} of the drawn ones; {interval(low, high)} are what "
        "chance allows",
        f"- nearer to a training case than duplicates are: {number(found.get('duplicates'))} of the drawn, "
        f"{number(found.get('held_out_duplicates'))} of real held-out cases "
        f"(p {number(found.get('duplicates_p'))})",
    ]


def verdict_of(found: Mapping[str, Any]) -> str:
    """The memorisation test's verdict in words; too few cases do not pass."""
    if not found.get("conclusive"):
        return "Not conclusive: too few cases to pass"
    return "Passes" if found["passes"] else "Does not pass"


def _mechanism(study: Mapping[str, Any]) -> list[str]:
    privacy = study["privacy"]
    if privacy["mechanism"] == "none":
        return [
            "- mechanism: none. Updates were not noised; whoever holds the model may test whether somebody "
            "was among the training patients"
        ]
    aim = (
        f"epsilon at most {privacy['epsilon']:g}"
        if privacy["epsilon"] is not None
        else f"noise multiplier {privacy['noise_multiplier']:g}; epsilon follows from a site's size"
    )
    lines = [
        f"- mechanism: {privacy['mechanism']} for each patient with all recordings, {aim} at delta "
        f"{privacy['delta']:g} for the whole study at each site; clip {privacy['clip_norm']:g}, accountant "
        f"{privacy['accountant']}",
        "- each site's own ledger keeps account; the coordinator sees no ledger but what a site hands over",
    ]
    if privacy["deterministic"]:
        lines.append("- **not private: the noise followed from a public seed, as in tests**")
    return lines


def _secure(study: Mapping[str, Any]) -> list[str]:
    secure = study["secure_aggregation"]
    if secure is None:
        return ["- secure aggregation: no; the coordinator saw each site's updates"]
    return [
        f"- secure aggregation: yes; the coordinator learnt sums over at least {secure['threshold']} of "
        f"{len(secure['roster'])} sites and no site's own update"
    ]


def _uncovered(study: Mapping[str, Any]) -> list[str]:
    if study["privacy"]["mechanism"] == "none" or study["secure_aggregation"] is None:
        return []
    exact = [phase["task"] for phase in study["phases"] if phase["task"] in CLOSED]
    return [
        "- epsilon covers the steps of training alone. Sums over all sites are exact: of metrics on test "
        f"patients{', and of the phases ' + ', '.join(exact) if exact else ''}"
    ]
