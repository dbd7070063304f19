"""Parts of the result's table that only some studies have: empty where the study did not measure them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS, view_of
from simulation.generated import KINDS, MEAN
from simulation.table_lines import interval, number, table

Content = Mapping[str, Any]
REFERENCES = ("shuffled", "unconditional", "mean_cine")
VIEW_WORDS = {LONG_AXIS: "", SHORT_AXIS: ", short axis"}


def sites_part(result: Content) -> list[str]:
    """Screening: each disease pooled, and what the sites say together about one of their kind."""
    phase = next((p for p in result["summary"]["phases"] if p["task"] == "screening"), None)
    if phase is None or not phase["meta_analysis"]:
        return []
    test = _test(result, "screening")
    head = ["AUROC", "pooled", "95 % interval", "sites", "together", "95 % interval", "a new site", "I2"]
    head += [f"{site} (external)" for site in test["external"]]
    rows = []
    for row in phase["meta_analysis"]:
        disease, pooled = row["disease"], test["pooled"]
        ends = [pooled.get(f"auroc_{end}/{disease}") for end in ("low", "high")]
        cells = [disease, number(pooled[f"auroc/{disease}"]), interval(*ends), str(row["sites"])]
        cells += [number(row["auroc"]), interval(row["low"], row["high"])]
        cells += [interval(row["predicted_low"], row["predicted_high"]), number(row["i2"])]
        cells += [number(metrics.get(f"auroc/{disease}")) for metrics in test["external"].values()]
        rows.append(cells)
    return table(head, rows)


def calibration_part(result: Content) -> list[str]:
    """The mean calibration error before and after, pooled and at external sites."""
    rows = []
    for kind, site, metrics in _kinds(_test(result, "calibrate")):
        names = ("ece_uncalibrated_mean", "ece_mean", "brier_uncalibrated_mean", "brier_mean")
        if kind != "site" and names[0] in metrics:
            rows.append([site or "members", *(number(metrics.get(name)) for name in names)])
    head = ["calibration", "ECE before", "ECE after", "Brier before", "Brier after"]
    return table(head, rows) if rows else []


def drawing_part(result: Content) -> list[str]:
    """SSIM beside its references, and how the drawn left ventricle follows the real one."""
    lines: list[str] = []
    rows = []
    for view, words in VIEW_WORDS.items():
        for kind, site, metrics in _kinds(_test(result, "generate", view=view)):
            if kind != "site" and "ssim" in metrics:
                references = [number(metrics.get(f"ssim_{reference}")) for reference in REFERENCES]
                rows.append([(site or "members") + words, number(metrics["ssim"]), *references])
    if rows:
        lines += table(["SSIM, patients of", "drawn", "another's ECG", "no ECG", "mean cine"], rows)
    drawings = result.get("drawings") or {}
    rows = [
        [population, *(number(found[kind]["area_r"]) for kind in KINDS), str(found["n"])]
        for population, found in drawings.items()
        if isinstance(found, dict)
    ]
    if rows:
        meter = number(drawings.get("area_r_meter"))
        head = ["r of LV area, patients of", "drawn", "another's ECG", "no ECG", "people"]
        lines += [*([""] if lines else []), *table(head, rows), f"the meter's own r with masks is {meter}"]
    likeness = {name: found for name, found in drawings.items() if isinstance(found, dict) and MEAN in found}
    rows = [
        [
            population,
            *(number(found[kind]["ssim"]) for kind in (*KINDS, MEAN)),
            f"{number(found[MEAN]['gain'])} (SE {number(found[MEAN]['gain_se'])})",
        ]
        for population, found in likeness.items()
    ]
    if rows:
        head = [
            "SSIM, patients of",
            "drawn",
            "another's ECG",
            "no ECG",
            "members' mean cine",
            "drawn minus mean",
        ]
        lines += ["", *table(head, rows)]
    return lines


def memorisation_part(result: Content) -> list[str]:
    """The verdict in one line, on each view that was asked about."""
    return [line for view in VIEW_WORDS for line in _verdict(result, view)]


def _verdict(result: Content, view: str) -> list[str]:
    found = _test(result, "memorisation", view=view).get("pooled", {})
    if "passes" not in found:
        return []
    if not found.get("conclusive"):
        verdict = "too few cases to pass"
    else:
        verdict = "passes" if found["passes"] else "DOES NOT PASS"
    ends = interval(found.get("training_share_low"), found.get("training_share_high"))
    share, drawn, real, p = (
        number(found.get(name))
        for name in ("training_share", "duplicates", "held_out_duplicates", "duplicates_p")
    )
    return [
        f"memorisation{VIEW_WORDS[view]}: {verdict} · nearest to a training case: {share} of the drawn "
        f"({ends} allowed) · below the duplicates' distance: {drawn} of the drawn, {real} of real held-out "
        f"cases (p {p})"
    ]


def fusion_part(result: Content) -> list[str]:
    """The ECG alone against the ECG and its drawn cine, on the same people."""
    rows = []
    for kind, site, metrics in _kinds(_test(result, "fuse")):
        if kind != "site" and "auroc_gain_mean" in metrics:
            gain = [metrics.get(f"auroc_gain_mean{end}") for end in ("_low", "_high")]
            values = (metrics.get("ecg_only/auroc_mean"), metrics["auroc_mean"], metrics["auroc_gain_mean"])
            cells = [*map(number, values), interval(*gain), number(metrics.get("auroc_gain_mean_p"))]
            rows.append([site or "members", *cells])
    head = ["mean AUROC, patients of", "ECG alone", "with drawn cine", "gain", "95 % interval", "p"]
    return table(head, rows) if rows else []


def _test(result: Content, task: str, *, view: str = LONG_AXIS) -> Mapping[str, Any]:
    """The last measurement of a task of a view on test patients; without anybody where there is none."""
    for entry in reversed(result["rounds"]):
        options = result["study"]["phases"][entry["phase"]].get("options") or {}
        if entry["task"] == task and view_of(options) == view and entry.get("test"):
            return cast(Mapping[str, Any], entry["test"])
    return {"pooled": {}, "sites": [], "external": {}}


def _kinds(test: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, float]]]:
    return [
        ("pooled", "", test["pooled"]),
        *(("external", site, metrics) for site, metrics in test["external"].items()),
    ]
