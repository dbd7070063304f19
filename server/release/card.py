"""The model card: what a model is, on whom it was trained and measured, and what it must not be used for.

Step 14 of the walk. Comes in: the content of ``result.json``, and of a release what was made and checked for
it. Goes out: Markdown under the headings that the field uses for model cards (arXiv 1810.03993). Every number
is the result's; of people only what the sites told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cardionets_core.config.study import Study, phase_title
from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS, short_axis_name
from server.release.card_privacy import memorisation_lines, privacy_lines
from server.release.card_tables import (
    calibration_lines,
    count,
    data_lines,
    disease_lines,
    group_lines,
    metric_lines,
    phenotype_lines,
    table,
)

Content = Mapping[str, Any]
RESEARCH_ONLY = "Research use only. Not a medical device, and not for diagnosis."
SIMULATED = (
    "Trained and measured in simulation: the hospitals were made on one machine, and their patients are "
    "synthetic but for recordings that the scenario reads from a folder."
)
LICENCE = "Apache-2.0"
"""Of the code. What the weights may be used for also follows from the sites' agreements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """What a release adds to what its run knows.

    Attributes:
        modules: parameters of each module that is in it.
        model_digest: over these modules.
        left_out: modules of the run that are not in it.
        onnx: file of ``onnx/`` to the largest difference from torch, relative to the scale of each output.
        signed_by: who signs, in words; empty where nobody does.
        without_generator: it was left out because its memorisation test stands against it.
        samples: of a window.
        rate_hz: of a window.
        epsilon: site to what it says it has spent on the study.
    """

    modules: Mapping[str, int]
    model_digest: str
    left_out: tuple[str, ...] = ()
    onnx: Mapping[str, float]
    signed_by: str = ""
    without_generator: bool = False
    samples: int
    rate_hz: int
    epsilon: Mapping[str, float] = field(default_factory=dict)


def card_of(content: Content, *, release: ReleaseFacts | None = None) -> str:
    """A model card.

    Args:
        content: of ``result.json``; of a paused study it says so.
        release: what a release adds; None for a run that is not released.

    Returns:
        Markdown; every line but those of tables and headings is plain English.
    """
    parts = {
        "Model details": _details(content, release),
        "Intended use": _intended(),
        "Out of scope": _out_of_scope(),
        "Training data": [*_origin(content), "", *data_lines(content)],
        "Metrics": _metrics(content),
        "Subgroups": group_lines(content),
        "Calibration": calibration_lines(content),
        "Privacy": privacy_lines(content, spent=release.epsilon if release else {}),
        "Memorisation test": memorisation_lines(content, released=_views_drawn(content, release)),
        "Limits": _limits(content, release),
        "Licence and provenance": _provenance(content, release),
    }
    lines = [f"# Model card: {content['study']['name']}", "", f"**{RESEARCH_ONLY}**"]
    if content.get("scenario"):
        lines += ["", f"**{SIMULATED}**"]
    for title, body in parts.items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _details(content: Content, release: ReleaseFacts | None) -> list[str]:
    study = content["study"]
    models = Study.model_validate(study).models
    names = sorted(release.modules if release else content["modules"])
    tasks = ", ".join(
        dict.fromkeys(phase_title(each["task"], each.get("options")) for each in study["phases"])
    )
    lines = [
        "A model that reads a resting 12-lead ECG and predicts what a cardiac MRI of that heart may show.",
        "It was trained by hospitals of a simulation, each of which kept its records: no number here comes "
        "from clinical use."
        if content.get("scenario")
        else "It was trained by hospitals that kept their records: only updates of the model left them.",
        "",
        f"- study `{study['name']}`, preset `{models}`, {len(study['phases'])} phases: {tasks}",
        f"- aggregation: {study['aggregation']['strategy']} over at least "
        f"{count(study['sites']['minimum'])} sites a round; rounds done: {count(len(content['rounds']))}",
        f"- modules: {', '.join(names) or 'none'}",
    ]
    if content["status"] != "completed":
        lines.append("- **the study has not ended: these are numbers on the way, and no final model**")
    if release is not None:
        lines.append(f"- parameters: {count(sum(release.modules.values()))}")
        lines.append(
            f"- input: 12 leads, {release.samples} samples at {release.rate_hz} Hz; see `preprocessing.json`"
        )
    return lines


def _intended() -> list[str]:
    return [
        "- research on what an ECG tells of the heart's structure and function",
        "- as a start for further training in a study that its ethics committee has approved",
        "- users: researchers in cardiology and machine learning who can judge its errors on their own data",
    ]


def _out_of_scope() -> list[str]:
    return [
        "- diagnosis, screening or treatment of anybody; triage; decisions on insurance or work",
        "- in place of a cardiac MRI: a drawn cine shows what is likely, and nothing can be measured on it",
        "- people unlike those of the training data: children, paced rhythms, other kinds of recorders",
        "- finding out who a person is, or whether somebody was among the patients",
    ]


def _origin(content: Content) -> list[str]:
    scenario = content.get("scenario")
    lines = []
    if scenario:
        lines += [
            f"**This study ran in simulation**, scenario `{scenario}`. Its hospitals were made on one "
            "machine. Their patients are synthetic, except at hospitals of a scenario that reads a folder of "
            "recordings; nothing here was measured in clinical use.",
            "",
        ]
    return [
        *lines,
        "Each site's records stayed there. A site tells counts only as far as its policy allows: they may be "
        f"rounded, and `{count(None)}` stands for those that it keeps to itself.",
    ]


def _metrics(content: Content) -> list[str]:
    lines = [
        "On test patients, of whom the model saw nothing in training. External sites trained nothing at all.",
        "",
        *metric_lines(content),
    ]
    for title, found in (
        ("Diseases, after the phase `screening`:", disease_lines(content)),
        ("Phenotypes of cardiac MRI, of the members' test patients:", phenotype_lines(content)),
    ):
        if found:
            lines += ["", title, "", *found]
    return lines


def _draws(content: Content, release: ReleaseFacts | None) -> bool:
    return bool(_views_drawn(content, release))


def _views_drawn(content: Content, release: ReleaseFacts | None) -> list[str]:
    """Views of which there is a generator among the modules."""
    modules = release.modules if release else content["modules"]
    held = {LONG_AXIS: "cmr_generator", SHORT_AXIS: short_axis_name("cmr_generator")}
    return [view for view, name in held.items() if name in modules]


def _limits(content: Content, release: ReleaseFacts | None) -> list[str]:
    lines = [
        "- intervals hold for people like the test patients; sites differ, and a new site may differ more",
        "- an R² at or below 0 means: no better than the mean of the test patients",
        "- what is rare among the training patients is predicted worst",
        "- a phenotype of the sites' own software carries that software's errors along",
    ]
    if Study.model_validate(content["study"]).model_parts.takes_covariates:
        lines.append(
            "- **the ECG's encoder also takes age and sex: what was measured is of ECG and demographics "
            "together, and not of the ECG**; a prediction from an ECG alone takes them for unknown"
        )
    if _draws(content, release):
        lines.append(
            "- a generated cine adds no information beyond its ECG, and volumes cannot be read off it"
        )
    if release is not None and release.without_generator:
        lines.append("- **the generator was left out: its memorisation test stands against its release**")
    if release is not None:
        lines += [
            f"- `onnx/{name}` differs from the torch model by at most {difference:.1e} of an output's scale "
            "(measured when the release was made; 1e-4 is allowed)"
            for name, difference in sorted(release.onnx.items())
        ]
    broken = content.get("broken_sites") or {}
    if broken:
        lines.append(f"- sites that could not take part: {', '.join(sorted(broken))}")
    return lines


def _provenance(content: Content, release: ReleaseFacts | None) -> list[str]:
    rows = [
        ["licence of the code", LICENCE],
        ["study digest", f"`{content['study_digest']}`"],
        ["digest of the run's model", f"`{content['model_digest']}`"],
    ]
    if release is not None:
        rows.append(["digest of this model", f"`{release.model_digest}`"])
        rows.append(["left out of this release", ", ".join(release.left_out) or "nothing"])
        rows.append(["signature", release.signed_by or "**none: this release is unsigned**"])
    versions = content["versions"]
    rows.append(["versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))])
    return [
        *table(["what", "value"], rows),
        "",
        "The licence covers code and files as such. Weights trained on controlled cohorts stay bound to what "
        "these cohorts allow: ask the consortium before you pass them on.",
    ]
