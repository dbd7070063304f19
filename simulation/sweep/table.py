"""A sweep as a table for a person, the best cell first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulation.sweep.plan import short_key
from simulation.table_lines import number, table

MOST_ROWS = 60


def sweep_table(content: Mapping[str, Any], folder: Path) -> str:
    """Keys, the metric, every other primary metric, left-out replies and seconds."""
    rows = content["rows"]
    primary = list(dict.fromkeys(name for row in rows for name in row.get("primary", ())))
    others = [name for name in primary if name != content["metric"]]
    head = [*(short_key(key) for key in content["keys"]), content["metric"], *others, "left out", "seconds"]
    lines = [f"{content['scenario']} · {len(rows)} cells · keys: {', '.join(content['keys'])}", ""]
    body = []
    for row in rows[:MOST_ROWS]:
        cells = [str(row["values"][key]) for key in content["keys"]]
        if row["failure"]:
            body.append([*cells, f"FAILED {row['failure']}", *[""] * (len(others) + 2)])
            continue
        values = [number(row["value"]), *(number(row["metrics"].get(name)) for name in others)]
        body.append([*cells, *values, str(row["left_out"]), f"{row['seconds']:.0f}"])
    lines += table(head, body)
    if len(rows) > MOST_ROWS:
        lines.append(f"and {len(rows) - MOST_ROWS} more: see sweep.csv")
    for row in rows:
        if row["failure"]:
            lines.append(f"FAILED {row['cell']} [{row['failure']}]: {row['reason']}")
    lines += ["", f"everything is in {folder}: sweep.json, sweep.csv, sweep.png, sweep.svg, mlflow.db"]
    return "\n".join(lines)


def plan_table(content: Mapping[str, Any]) -> str:
    """A line a cell, and that nothing was run."""
    labels = [cell["label"] for cell in content["cells"]]
    count = f"{len(labels)} cell{'s' if len(labels) != 1 else ''}"
    return "\n".join([*labels, "", f"{count} of {content['scenario']}, all valid; nothing was made or run"])
