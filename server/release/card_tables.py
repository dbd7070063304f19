"""Tables of the model card: what the sites told of their data, and what was measured (step 14 of the walk).

Comes in: the content of ``result.json``. Goes out: lines of Markdown. Nothing is measured here, and a count
that a site did not tell is not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cardionets_core.config.study import phase_title
from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.records import LABEL_TITLES
from cardionets_core.tasks.short_axis import LONG_AXIS, view_of

Content = Mapping[str, Any]
NOT_TOLD = "not told"
GROUPS_ALONE = (
    "These values have no intervals, and the sites do not tell how many people are in a group: a difference "
    "between groups may be chance. Groups that are too small to be told of are absent."
)
_SPLITS = ("train", "validation", "test")
_KINDS = ("ecg", "cine", "pair")
_POOLED = "members together"
_COUNTED = ("standardise", "prevalence", "memorisation")
"""Tasks whose primary metric says how much was counted, and nothing of the model's worth."""
_COUNTS = ("columns", "diseases", "queries")
_TITLES = {str(each.field): each.title for each in PHENOTYPES}
_UNITS = {str(each.field): each.unit for each in PHENOTYPES}


def data_lines(content: Content) -> list[str]:
    """A line a site: its part in the study, and the counts that its policy lets it tell."""
    rows = []
    short_axis = any("sax" in (site.get("recordings") or {}) for site in content["sites"])
    kinds = _KINDS if not short_axis else (*_KINDS, "sax")
    for site in content["sites"]:
        patients, recordings = site.get("patients") or {}, site.get("recordings") or {}
        sat_out = [task for task, word in sorted(site.get("phases", {}).items()) if word != "serves"]
        rows.append(
            [
                site["site"],
                "measured only" if site.get("role") == "external" else "trained",
                *(count(patients.get(split)) for split in _SPLITS),
                *(count(recordings.get(kind)) for kind in kinds),
                ", ".join(sat_out) or "none",
            ]
        )
    if not rows:
        return ["Nothing is known of the sites."]
    head = ["site", "part", *(f"patients: {split}" for split in _SPLITS)]
    counted = ["ECGs", "cines", "pairs", *(["short-axis cines"] if short_axis else [])]
    return table([*head, *counted, "phases that it could not serve"], rows)


def metric_lines(content: Content) -> list[str]:
    """The primary metric of each measured phase: together, at external sites, and at each member."""
    phases = [phase for phase in content["summary"]["phases"] if phase["task"] not in _COUNTED]
    if not phases:
        return ["Nothing was measured on test patients."]
    rows, titles = [], []
    for phase in phases:
        asked = content["study"]["phases"][phase["phase"]]
        titles.append(phase_title(asked["task"], asked.get("options")))
        found = {value["site"]: value for value in phase["values"] if value["kind"] != "site"}
        pooled = next((value for value in phase["values"] if value["kind"] == "pooled"), None)
        cells = [titles[-1], f"`{phase['metric']}`", _POOLED, *_measured(pooled)]
        rows.append(cells)
        rows += [["", "", f"{site} (external)", *_measured(value)] for site, value in found.items() if site]
    head = ["phase", "metric", "patients of", "value", "95 % interval", "made by", "people"]
    lines = table(head, rows)
    sites = sorted({v["site"] for phase in phases for v in phase["values"] if v["kind"] == "site"})
    if not sites:
        return lines
    by_site = []
    for site in sites:
        told = [[v for v in p["values"] if v["kind"] == "site" and v["site"] == site] for p in phases]
        by_site.append([site, *(_with_interval(values[0]) if values else "–" for values in told)])
    head = ["site", *(f"{title} `{phase['metric']}`" for title, phase in zip(titles, phases, strict=True))]
    return [
        *lines,
        "",
        "The same on each member's own test patients, with 95 % intervals:",
        "",
        *table(head, by_site),
    ]


def disease_lines(content: Content) -> list[str]:
    """AUROC of each disease: members together with its interval, and external sites."""
    test = last_test(content, "screening")
    pooled, external = test["pooled"], test["external"]
    rows = []
    for name, title in LABEL_TITLES.items():
        if pooled.get(f"auroc/{name}") is None:
            continue
        ends = [pooled.get(f"auroc_{end}/{name}") for end in ("low", "high")]
        ill = f"{count(pooled.get(f'positives/{name}'))} of {count(pooled.get(f'n/{name}'))}"
        cells = [title, number(pooled[f"auroc/{name}"]), interval(*ends), ill]
        rows.append([*cells, *(number(external[site].get(f"auroc/{name}")) for site in sorted(external))])
    head = ["AUROC", _POOLED, "95 % interval", "ill of assessed"]
    return table([*head, *(f"{site} (external)" for site in sorted(external))], rows) if rows else []


def phenotype_lines(content: Content) -> list[str]:
    """R2 and error of each phenotype that was tested, by the head where there is one, else by the probe."""
    task = "phenotype" if last_test(content, "phenotype")["pooled"] else "probe"
    pooled = last_test(content, task)["pooled"]
    rows = [
        [
            f"{_TITLES[field]} ({field})",
            number(pooled[f"r2/{field}"]),
            f"{number(pooled.get(f'rmse/{field}'))} {_UNITS[field]}",
            number(pooled.get(f"pearson/{field}")),
        ]
        for field in _TITLES
        if pooled.get(f"r2/{field}") is not None
    ]
    return table(["phenotype (field)", "R²", "RMSE", "Pearson's r"], rows) if rows else []


def group_lines(content: Content) -> list[str]:
    """Values of subgroups by sex and age, members together; groups too small to be told of are absent."""
    lines: list[str] = []
    for prefix, kind in (("sex-", "sex"), ("age-", "age")):
        found: dict[tuple[str, str], dict[str, float]] = {}
        for phase in content["summary"]["phases"]:
            for row in phase["groups"]:
                told = row["pooled"] is not None and row["metric"] not in _COUNTS
                if told and row["group"].startswith(prefix):
                    found.setdefault((phase["task"], row["metric"]), {})[row["group"]] = row["pooled"]
        groups = sorted({group for values in found.values() for group in values}, key=_place)
        rows = [
            [task, f"`{metric}`", *(number(values.get(group)) for group in groups)]
            for (task, metric), values in found.items()
        ]
        if rows:
            lines += [*([""] if lines else []), f"By {kind}:", ""]
            lines += table(["phase", "metric", *map(_group, groups)], rows)
    if lines:
        lines += ["", GROUPS_ALONE]
    return lines or ["No subgroup was large enough to be told of, or the sites know neither sex nor age."]


def calibration_lines(content: Content) -> list[str]:
    """Calibration errors of each disease before and after, together and at external sites."""
    rows = []
    for row in content["summary"]["calibration"]:
        if row["kind"] == "site":
            continue
        before, after = row["before"], row["after"]
        where = f"{row['site']} (external)" if row["kind"] == "external" else _POOLED
        cells = [LABEL_TITLES.get(row["disease"], row["disease"]), where, count(row["n"])]
        for name in ("ece", "brier"):
            cells += [number(before.get(name)), number(after.get(name))]
        rows.append([*cells, number(after.get("calibration_slope"))])
    head = ["disease", "patients of", "people", "ECE before", "ECE after", "Brier before", "Brier after"]
    return table([*head, "slope after"], rows) if rows else ["The probabilities were not calibrated."]


def last_test(content: Content, task: str, *, view: str = LONG_AXIS) -> Mapping[str, Any]:
    """The last measurement of a task of a view on test patients; without anybody where there is none."""
    for entry in reversed(content["rounds"]):
        test, options = entry.get("test"), content["study"]["phases"][entry["phase"]].get("options") or {}
        if entry["task"] == task and view_of(options) == view and test and test.get("pooled"):
            return {"pooled": test["pooled"], "external": test.get("external") or {}}
    return {"pooled": {}, "external": {}}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [_line(head), _line(["---"] * len(head))]
    return [*lines, *map(_line, rows)]


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.0005:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 1.0005 else f"{value:.3g}"


def interval(low: float | None, high: float | None) -> str:
    """Both ends, or a dash."""
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def count(value: float | None) -> str:
    """A count with thousands apart; one that was not told says so."""
    return NOT_TOLD if value is None else f"{value:,.0f}"


def _measured(value: Mapping[str, Any] | None) -> list[str]:
    if value is None:
        return ["–", "–", "none", NOT_TOLD]
    ends = interval(value["low"], value["high"])
    return [number(value["value"]), ends, value["interval"] or "none", count(value["patients"])]


def _with_interval(value: Mapping[str, Any]) -> str:
    ends = "" if value["low"] is None else f" ({interval(value['low'], value['high'])})"
    return number(value["value"]) + ends


def _group(name: str) -> str:
    kind, _, rest = name.partition("-")
    if rest == "unknown":
        return f"{kind} unknown"
    if kind == "sex":
        return {"F": "women", "M": "men"}.get(rest, rest)
    words = rest.replace("-", " ")
    return f"{rest} years" if rest[:1].isdigit() and rest[-1:].isdigit() else words


def _place(group: str) -> tuple[bool, bool, str]:
    return group.endswith("unknown"), "under" not in group, group


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
