"""docs/strategies.md is true: every strategy, with its fewest sites and every option with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from strategies import STRATEGIES, make_strategy

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
TABLE, _, REST = TEXT.partition("## Options")
OPTIONS, _, FLOWER = REST.partition("## Flower's own")
OURS = sorted(name for name in STRATEGIES if not name.startswith("flower/"))


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented_options() -> dict[tuple[str, str], str]:
    """(strategy, option) to the default as written; an empty first cell goes on with the strategy above."""
    found: dict[tuple[str, str], str] = {}
    strategy = ""
    for first, names, defaults, _ in rows(OPTIONS):
        strategy = first.strip("`") or strategy
        for name, default in zip(re.findall(r"`([a-z_0-9]+)`", names), defaults.split(", "), strict=True):
            found[strategy, name] = default
    return found


def test_the_document_lists_the_strategies_of_the_code():
    assert [row[0].strip("`") for row in rows(TABLE)] == [n for n in STRATEGIES if n in OURS]
    assert all(row[1] and row[4] for row in rows(TABLE))
    named = set(re.findall(r"`(flower/[a-z]+)`", FLOWER))
    assert named == set(STRATEGIES) - set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_the_fewest_sites_are_those_of_the_code(name):
    (written,) = [row[3] for row in rows(TABLE) if row[0] == f"`{name}`"]
    factor = re.fullmatch(r"(\d) f \+ 3", written)
    for attackers in (1, 2, 3) if factor else (0,):
        options = {"attackers": attackers} if factor else {}
        options |= {"qfedavg": {"local_rate": 1.0}, "norm_bound": {"bound": 1.0}}.get(name, {})
        expected = int(factor[1]) * attackers + 3 if factor else int(written)
        assert make_strategy(name, options).fewest == expected


def test_every_option_stands_there_with_its_default():
    expected = {
        (name, option): str(value).lower() if isinstance(value, bool) else str(value)
        for name in OURS
        for option, value in STRATEGIES[name].defaults.items()
    }
    expected |= {(name, option): "needed" for name in OURS for option in STRATEGIES[name].required}
    assert documented_options() == expected
