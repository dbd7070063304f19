"""docs/phases.md and docs/generations.md are true: tasks, modules, options, sizes of either generation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cardionets_core.config.generation import CHOICES
from cardionets_core.models import build_module
from cardionets_core.tasks import EARLIER, TASKS, ClosedFormTask, MeasureTask, make_task

GENERATIONS = (Path(__file__).resolve().parents[2] / "docs" / "generations.md").read_text()
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "phases.md").read_text()
ROWS = {
    match[1]: [cell.strip() for cell in match[2].split("|")]
    for match in re.finditer(r"^\| `([a-z_]+)` \|(.*)\|$", TEXT.partition("## Keys")[0], re.M)
}
OPTIONS = TEXT.partition("## Options")[2].partition("## What")[0]


def documented_options(text: str = OPTIONS) -> dict[tuple[str, str], str]:
    """(task, option) to the default as written; an empty first cell goes on with the tasks above."""
    found: dict[tuple[str, str], str] = {}
    tasks: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or cells[0] in ("task", "---"):
            continue
        tasks = re.findall(r"`([a-z_]+)`", cells[0]) or tasks
        names, defaults = re.findall(r"`([a-z_]+)`", cells[1]), cells[2].split(", ")
        for name, default in zip(names, defaults, strict=True):
            for task in tasks:
                found[task, name] = default
    return found


def test_the_document_lists_the_tasks_of_the_code():
    assert set(ROWS) == set(TASKS)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_what_a_task_trains_and_is_measured_by(name):
    task, row = make_task(name, {}), ROWS[name]
    assert set(task.trains) <= set(re.findall(r"[a-z_]+", row[0]))
    if name != "fuse":
        assert set(task.reads) <= set(re.findall(r"[a-z_]+", row[1]))
    assert (row[3] == "sums") == isinstance(task, ClosedFormTask)
    assert (row[3] == "counts") == isinstance(task, MeasureTask)
    if row[4]:
        assert row[4].startswith("yes") == task.decomposes
    assert row[5] == task.primary


def test_every_option_stands_there_with_its_default():
    expected = {
        (name, option): str(value).lower() if isinstance(value, bool) else str(value)
        for name, kind in TASKS.items()
        for option, value in kind.defaults.items()
    }
    assert documented_options() == expected


def test_what_differs_in_the_earlier_generation_s_options_stands_in_its_document():
    expected = {
        (name, option): str(value).lower() if isinstance(value, bool) else str(value)
        for kinds in EARLIER.values()
        for name, kind in kinds.items()
        for option, value in kind.defaults.items()
        if (option, value) not in TASKS[name].defaults.items()
    }
    assert documented_options(GENERATIONS.partition("## Options")[2].partition("## Privacy")[0]) == expected


def test_the_parts_and_their_sizes_stand_in_the_document_of_generations():
    chosen = GENERATIONS.partition("| part |")[2].partition("Plans,")[0]
    for part, names in CHOICES.items():
        row = next(line for line in chosen.splitlines() if line.startswith(f"| `{part}`"))
        assert tuple(re.findall(r"`([a-z-]+)`", row)) == names
    names = [f"{preset}+cardiacnets" for preset in ("nano", "small", "paper")]
    counts = [
        sum(parameter.numel() for parameter in build_module(part, name, seed=0, device="meta").parameters())
        for part in CHOICES
        for name in names
    ]
    told = re.findall(r"\d{1,3}(?:,\d{3})+", GENERATIONS.partition("- **`vit`**")[0])
    assert [f"{count:,}" for count in counts] == told
