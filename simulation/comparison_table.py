"""The comparison as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulation.comparison import table_rows
from simulation.table_lines import interval, number, table

OF = ("arm", "task", "metric", "patients of")
OVER = ("95 % over patients", "over seeds")


def comparison_table(content: Mapping[str, Any], folder: Path) -> str:
    """What was compared, and beside the baseline, with intervals, and how to read them."""
    values, differences = [], []
    for row in table_rows(content):
        of = [row["arm"], row["task"], row["metric"], row["population"]]
        if row["mean"] is None:
            values.append([*of, number(None), row["reason"], "", "", ""])
            continue
        over = [interval(row["ci_low"], row["ci_high"]), interval(row["seeds_low"], row["seeds_high"])]
        values.append([*of, number(row["mean"]), *over, str(row["n"]), str(row["seeds"])])
        if row["arm"] != content["baseline"]:
            ends = [(row["difference_low"], row["difference_high"])]
            ends += [(row["difference_seeds_low"], row["difference_seeds_high"])]
            beside = [interval(low, high) for low, high in ends]
            differences.append([*of, number(row["difference"]), *beside, number(row["p"])])
    seeds = ", ".join(map(str, content["seeds"]))
    lines = [f"{content['scenario']} · seeds {seeds} · baseline {content['baseline']}", ""]
    lines += table((*OF, "mean", *OVER, "patients", "seeds"), values)
    if differences:
        lines += ["", *table((*OF, f"minus {content['baseline']}", *OVER, "p"), differences)]
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
