"""docs/phases.md is true: every task with its modules, every option with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cardionets_core.tasks import TASKS, ClosedFormTask, MeasureTask, make_task

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "phases.md").read_text()
ROWS = {
    match[1]: [cell.strip() for cell in match[2].split("|")]
    for match in re.finditer(r"^\| `([a-z_]+)` \|(.*)\|$", TEXT.partition("## Keys")[0], re.M)
}
OPTIONS = TEXT.partition("## Options")[2].partition("## What")[0]


def documented_options() -> dict[tuple[str, str], str]:
    """(task, option) to the default as written; an empty first cell goes on with the tasks above."""
    found: dict[tuple[str, str], str] = {}
    tasks: list[str] = []
    for line in OPTIONS.splitlines():
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
