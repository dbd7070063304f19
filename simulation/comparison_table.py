"""The comparison as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulation.comparison import table_rows
from simulation.table_lines import interval, number, table

HEAD = (
    "arm", "task", "metric", "patients of", "mean", "95 % over patients", "over seeds", "minus baseline",
    "95 % over patients", "over seeds", "p", "patients", "seeds",
)  # fmt: skip


def comparison_table(content: Mapping[str, Any], folder: Path) -> str:
    """What was compared, with intervals, and how to read them."""
    rows = []
    for row in table_rows(content):
        cells = [row["arm"], row["task"], row["metric"], row["population"], number(row["mean"])]
        if row["mean"] is None:
            rows.append([*cells, row["reason"], *[""] * (len(HEAD) - len(cells) - 1)])
            continue
        rows.append(
            [
                *cells,
                interval(row["ci_low"], row["ci_high"]),
                interval(row["seeds_low"], row["seeds_high"]),
                "baseline" if row["arm"] == content["baseline"] else number(row["difference"]),
                interval(row["difference_low"], row["difference_high"]),
                interval(row["difference_seeds_low"], row["difference_seeds_high"]),
                number(row["p"]),
                str(row["n"]),
                str(row["seeds"]),
            ]
        )
    seeds = ", ".join(map(str, content["seeds"]))
    lines = [f"{content['scenario']} · seeds {seeds} · baseline {content['baseline']}", ""]
    lines += table(HEAD, rows)
    lines += [
        "",
        "over patients: paired bootstrap over people, of the mean over seeds; over seeds: Student's t, from "
        "two seeds on",
    ]
    if content["left_out"]:
        head = ["arm", "seed", "site", "event", "phase", "rounds", "what came of it"]
        left = [[each["arm"], str(each["seed"]), *each["row"]] for each in content["left_out"]]
        lines += ["", *table(head, left), ""]
    for name, failure in content["failed_cells"].items():
        lines.append(f"FAILED {name} [{failure['code']}]: {failure['text']}")
    lines.append(
        f"everything is in {folder}: comparison.json, comparison.csv, comparison.png, comparison.svg"
    )
    return "\n".join(lines)
