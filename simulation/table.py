"""The result as a table for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def result_table(result: dict[str, Any], folder: Path) -> str:
    """Sites, phases and arms of a result as plain text."""
    lines = [
        f"study {result['study']['name']} · {result['status']} · model {str(result['model_digest'])[:16]}",
        "",
    ]
    lines += _table(
        ["site", "train", "valid.", "test", "ECGs", "cines", "left out", "phases served"],
        [_site_row(site) for site in result["sites"]],
    )
    lines += ["", *_table(["phase", "rounds", "metric", "first", "last", "seconds"], _phase_rows(result))]
    if result["comparison"]:
        head = ["arm", "task", "metric", "patients of", "mean", "95 % interval", "patients"]
        lines += ["", *_table(head, _arm_rows(result))]
    if result.get("differences"):
        lines += [
            "",
            *_table(
                ["federated minus", "task", "metric", "patients of", "mean", "95 % interval"],
                _difference_rows(result),
            ),
        ]
    lines += ["", f"everything is in {folder}: result.json, model/, plots/, mlflow.db"]
    return "\n".join(lines)


def _site_row(site: dict[str, Any]) -> list[str]:
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
        str(recordings.get("cine", "-")),
        refusals,
        phases,
    ]


def _phase_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = []
    for index, phase in enumerate(result["study"]["phases"]):
        entries = [entry for entry in result["rounds"] if entry["phase"] == index]
        if not entries:
            continue
        metric = entries[-1].get("primary", "")
        values = [entry["pooled"].get(metric) for entry in entries if entry.get("pooled")]
        seconds = sum(entry["seconds"] for entry in entries)
        rows.append(
            [
                phase["task"],
                str(len(entries)),
                metric,
                _number(values[0] if values else None),
                _number(values[-1] if values else None),
                f"{seconds:.1f}",
            ]
        )
    return rows


def _arm_rows(result: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["arm"],
            row["task"],
            row["metric"],
            row["population"],
            _number(row["mean"]),
            f"{_number(row['ci_low'])} to {_number(row['ci_high'])}"
            if row["mean"] is not None
            else row["reason"],
            str(row["n"]),
        ]
        for row in result["comparison"]
    ]


def _difference_rows(result: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["arm"],
            row["task"],
            row["metric"],
            row["population"],
            _number(row["mean"]),
            f"{_number(row['ci_low'])} to {_number(row['ci_high'])}",
        ]
        for row in result["differences"]
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
