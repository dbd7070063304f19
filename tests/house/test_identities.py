"""docs/identities.md names tests that exist, for every acceptance identity."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IDENTITIES = 22

ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \|$")
NODE = re.compile(r"`(tests/[\w/]+\.py)?::(\w+)`")


def rows() -> dict[int, str]:
    """Number of an identity to the cell that names its tests."""
    text = (ROOT / "docs" / "identities.md").read_text(encoding="utf-8")
    found = [match for line in text.splitlines() if (match := ROW.match(line))]
    assert [int(match[1]) for match in found] == list(range(1, IDENTITIES + 1)), "each once, in order"
    return {int(match[1]): match[3] for match in found}


def nodes(cell: str) -> list[tuple[str, str]]:
    """File and function of each test in a cell; one without a file is of the file before it."""
    found: list[tuple[str, str]] = []
    for file, function in NODE.findall(cell):
        found.append((file or found[-1][0], function))
    assert len(found) == cell.count("::"), "a node id that is not written as `tests/...py::test_...`"
    return found


@cache
def functions_of(file: str) -> frozenset[str]:
    """Names of the test functions of a file, without those that are skipped outright."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(
        item.name
        for item in tree.body
        if isinstance(item, ast.FunctionDef)
        and item.name.startswith("test_")
        and not any(re.search(r"mark\.(skip|xfail)\b", ast.unparse(mark)) for mark in item.decorator_list)
    )


@pytest.mark.parametrize("identity", range(1, IDENTITIES + 1))
def test_every_identity_names_tests_that_exist(identity):
    cell = rows()[identity]
    named = nodes(cell)
    assert named
    assert len(set(named)) == len(named)
    missing = [f"{file}::{name}" for file, name in named if name not in functions_of(file)]
    assert missing == []


def test_an_identity_rests_on_at_least_one_test_of_the_fast_lane():
    for identity, cell in rows().items():
        slow = [name for file, name in nodes(cell) if is_slow(file, name)]
        assert len(slow) < len(nodes(cell)), identity


def is_slow(file: str, name: str) -> bool:
    """Whether a test is marked slow or system."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (test,) = (item for item in tree.body if isinstance(item, ast.FunctionDef) and item.name == name)
    return any(re.search(r"mark\.(slow|system)\b", ast.unparse(mark)) for mark in test.decorator_list)
