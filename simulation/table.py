"""The result as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardionets_core.config.study import phase_title
from server.best_rounds import chance_of
from simulation.events.table import event_rows
from simulation.table_lines import interval, number, table
from simulation.table_parts import calibration_part, drawing_part, fusion_part, memorisation_part, sites_part

Content = Mapping[str, Any]


def result_table(result: Content, folder: Path) -> str:
    """Sites, phases, arms and what else the study measured, as plain text."""
    lines = [
        f"study {result['study']['name']} · {result['status']} · model {str(result['model_digest'])[:16]}",
        "",
    ]
    lines += table(
        ["site", "train", "valid.", "test", "ECGs", "cines", "left out", "phases served"],
        [_site_row(site) for site in result["sites"]],
    )
    lines += [
        "",
        *table(["phase", "rounds", "metric", "first", "last", "by chance", "seconds"], _phase_rows(result)),
    ]
    if events := event_rows(result):
        lines += ["", *table(["site", "event", "phase", "rounds", "what came of it"], events)]
    for part in (sites_part, calibration_part, drawing_part, memorisation_part, fusion_part):
        if found := part(result):
            lines += ["", *found]
    lines += _comparison(result)
    store = result.get("tracking", {}).get("store", "")
    lines += ["", f"everything is in {folder}: result.json, model/, plots/{', ' if store else ''}{store}"]
    return "\n".join(lines)


def _site_row(site: Content) -> list[str]:
    patients, recordings = site.get("patients", {}), site.get("recordings", {})
    refusals = ", ".join(f"{reason} {count}" for reason, count in sorted(site.get("refusals", {}).items()))
    phases = ", ".join(
        task if state == "serves" else f"({task}: {state})" for task, state in site["phases"].items()
    )
    counts = [str(patients.get(split, "-")) for split in ("train", "validation", "test")]
    return [
        site["site"],
        *counts,
        str(recordings.get("ecg", "-")),
        str(recordings.get("cine", "-")) + (f" + {recordings['sax']} sax" if "sax" in recordings else ""),
        refusals,
        phases,
    ]


def _phase_rows(result: Content) -> list[list[str]]:
    rows = []
    for index, phase in enumerate(result["study"]["phases"]):
        entries = [entry for entry in result["rounds"] if entry["phase"] == index]
        if not entries:
            continue
        metric = entries[-1].get("primary", "")
        pooled = [entry["pooled"] for entry in entries if entry.get("pooled")]
        values = [metrics.get(metric) for metrics in pooled]
        chance = chance_of(pooled[-1], metric) if pooled else None
        seconds = sum(entry["seconds"] for entry in entries)
        ends = (values[0], values[-1]) if values else (None, None)
        by_chance = "" if chance is None else number(chance)
        rows.append(
            [
                phase_title(phase["task"], phase.get("options")),
                str(len(entries)),
                metric,
                *map(number, ends),
                by_chance,
                f"{seconds:.1f}",
            ]
        )
    return rows


def _comparison(result: Content) -> list[str]:
    lines: list[str] = []
    if result["comparison"]:
        head = ["arm", "task", "metric", "patients of", "mean", "95 % interval", "patients"]
        lines += ["", *table(head, [_arm_row(row) for row in result["comparison"]])]
    if result.get("differences"):
        head = ["federated minus", "task", "metric", "patients of", "mean", "95 % interval", "p"]
        lines += ["", *table(head, [_difference_row(row) for row in result["differences"]])]
        lines += [_columns_line(row) for row in result["differences"] if row.get("columns")]
    return lines


def _arm_row(row: Content) -> list[str]:
    ends = interval(row["ci_low"], row["ci_high"]) if row["mean"] is not None else row["reason"]
    words = [row["arm"], row["task"], row["metric"], row["population"]]
    return [*words, number(row["mean"]), ends, str(row["n"])]


def _difference_row(row: Content) -> list[str]:
    words = [row["arm"], row["task"], row["metric"], row["population"]]
    return [*words, number(row["mean"]), interval(row["ci_low"], row["ci_high"]), number(row["p"])]


def _columns_line(row: Content) -> str:
    """How many phenotypes differ after Holm's adjustment, and which most."""
    columns = row["columns"]
    sure = [each for each in columns if each["p_holm"] is not None and each["p_holm"] < 0.05]
    better = sum(each["difference"] > 0 for each in sure)
    best = max(columns, key=lambda each: each["difference"])
    return (
        f"{row['task']}, patients of {row['population']}: of {len(columns)} phenotypes federated is better "
        f"than {row['arm']} in {better} and worse in {len(sure) - better} (p < 0.05 after Holm); "
        f"most in {best['title']}, R2 {number(best['r2_other'])} to {number(best['r2'])}"
    )
