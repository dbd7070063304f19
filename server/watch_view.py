"""The live view of a study on a terminal: what the overview says, as bars and tables.

Comes in: what ``overview`` gives. Goes out: something that rich draws, as wide as the terminal.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server.overview import NO_SITES, site_words
from server.study_notes import not_begun, primary_note, primary_values, study_notes

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE = 40
"""Rounds that the curve of the primary metric shows."""
GOOD, BAD, CALM = "green", "bold red", "dim"
STATES = {"completed": GOOD, "running": GOOD, "failed": BAD, "stopped": BAD, "paused": "yellow",
          "starting again": "yellow"}  # fmt: skip


def watch_view(content: dict[str, Any]) -> RenderableType:
    """The overview as a picture."""
    parts: list[RenderableType] = [_service(content), Text()]
    parts += _study(content["study"])
    if content["sites"]:
        parts += [Text(), _sites(content)]
    else:
        parts += [Text(), Text(NO_SITES)]
    for failure in content["failures"]:
        parts += [Text(), Text(f"! {failure['where']}: {failure['what']}", style=BAD)]
        if failure.get("remedy"):
            parts.append(Text(f"  to do: {failure['remedy']}"))
    return Group(*parts)


def curve(values: list[float]) -> str:
    """Values as a row of blocks, the lowest and the highest of them at its ends."""
    values = values[-CURVE:]
    low, high = min(values), max(values)
    if low == high:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1))] for value in values)


def _service(content: dict[str, Any]) -> Text:
    service = content["service"]
    line = Text.assemble(
        "service ",
        (service["status"], GOOD if service["status"] == "ok" else BAD),
        f" at {content['address']}",
    )
    for name, entry in service["processes"].items():
        line.append(f" · {name} ")
        line.append(entry["state"], GOOD if entry["state"] == "ready" else BAD)
        if entry["restarts"]:
            line.append(f" ({entry['restarts']} restarts)")
    return line


def _study(study: dict[str, Any]) -> list[RenderableType]:
    if study["state"] == "not begun":
        return [Text(not_begun(study))]
    parts: list[RenderableType] = [
        Text.assemble(
            (f"study {study['name']}", "bold"), " · ", (study["state"], STATES.get(study["state"], ""))
        )
    ]
    if study.get("phase"):
        parts.append(_phases(study))
    known = primary_values(study)
    for note in study_notes(study):
        text = Text(f"  {note}")
        if len(known) > 1 and [note] == primary_note(study):
            text.append(f"  {curve(known)}", GOOD)
        parts.append(text)
    parts.append(Text(f"  {study['folder']}", style=CALM))
    return parts


def _phases(study: dict[str, Any]) -> Table:
    """Phases that are done with their best round, and the one that runs with its bar."""
    table = Table.grid(padding=(0, 2))
    for index, best in sorted((study.get("best") or {}).items(), key=lambda item: int(item[0])):
        if int(index) + 1 < study["phase"]:
            metric = f"best {best['metric']} {best['value']:.4f}"
            table.add_row(f"  {int(index) + 1}", best["task"], Text("done", GOOD), metric)
    done, rounds = study.get("round", 0), study.get("rounds") or 1
    bar = ProgressBar(total=rounds, completed=done, width=20, complete_style=GOOD, finished_style=GOOD)
    table.add_row(
        f"  {study['phase']}/{study.get('phases', '?')}", study.get("task", ""), bar, f"round {done}/{rounds}"
    )
    return table


def _sites(content: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=CALM)
    table.add_column("site", no_wrap=True, style="bold")
    for name in ("link", "this phase", "trained", "patients", "version"):
        table.add_column(name, overflow="fold")
    for site in content["sites"]:
        if site["status"] != "admitted":
            table.add_row(site["site"], Text(site["status"], BAD))
            continue
        words = site_words(site, content)
        link = Text(words["link"], GOOD if site["connected"] else BAD)
        if words["certificate"]:
            link.append(f"; {words['certificate']}", "yellow")
        phase = words["phase"]
        if site["code"] and site["code"] not in phase:
            phase = f"{phase}; {words['code']}"
        table.add_row(
            site["site"],
            link,
            Text(phase, "" if site["configured"] else "yellow"),
            site["trained"],
            str(sum(site["patients"].values())) if site["patients"] else "",
            site["versions"].get("cardionets", "?") if site["versions"] else "",
        )
    return table
