"""docs/simulation.md is true: every key with its default, every event, commands that the program takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import typer
import yaml
from pydantic import TypeAdapter

from simulation.cli import cli
from simulation.consortium import Consortium
from simulation.events.schedule import Attack, Event, Fault, LabelFlip
from simulation.scenario import Comparison, Scenario

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "simulation.md").read_text()


def part(heading: str) -> str:
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str, first: str) -> dict[str, str]:
    """Key to default, of the table whose first column has this head."""
    lines = text.partition(f"| {first} |")[2].splitlines()[2:]
    found = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`([a-z_.]+)`", cells[0]):
            found[name] = cells[1].strip("`")
    return found


def check_default(text: str, default) -> None:
    if text and text not in ("needed", "none", "all") and not text.startswith("as of"):
        given = yaml.safe_load(text)
        plain = default.model_dump() if hasattr(default, "model_dump") else default
        assert given == (list(plain) if isinstance(plain, tuple) else plain), text


def test_the_keys_of_a_scenario():
    found = rows(part("The scenario"), "key")
    assert set(found) == set(Scenario.model_fields)
    for name, text in found.items():
        if text == "needed":
            assert Scenario.model_fields[name].is_required()


def test_the_keys_of_a_consortium():
    found = rows(part("A consortium by its numbers"), "key")
    tops = {name.partition(".")[0] for name in found}
    assert tops == set(Consortium.model_fields)
    for name, text in found.items():
        top, _, inner = name.partition(".")
        field = Consortium.model_fields[top]
        assert (text == "needed") == field.is_required()
        if inner:
            document = type(field.default)
            assert inner in document.model_fields
            check_default(text, document.model_fields[inner].default)
        else:
            check_default(text, field.default)
    for top in ("quantity", "labels", "missing"):
        inner = {name.partition(".")[2] for name in found if name.startswith(f"{top}.")}
        assert inner == set(type(Consortium.model_fields[top].default).model_fields)


def test_the_kinds_and_keys_of_events():
    kinds = {
        kind
        for document in (Fault, Attack, LabelFlip)
        for kind in get_args(document.model_fields["kind"].annotation)
    }
    assert set(rows(part("Events"), "kind")) == kinds
    assert set(rows(part("Events"), "key")) == {*Fault.model_fields, *Attack.model_fields}
    for kind, line in re.findall(r"^\| `([a-z_]+)` \| (.*`factor` \(\d+\).*) \|$", part("Events"), re.M):
        usual = float(re.search(r"`factor` \((\d+)\)", line)[1])
        assert TypeAdapter(Event).validate_python({"site": "a", "kind": kind}).strength == usual


def test_the_keys_of_a_comparison():
    found = rows(part("compare"), "key of `comparison`")
    assert set(found) == set(Comparison.model_fields)
    for name, text in found.items():
        check_default(text, Comparison.model_fields[name].default)


def test_the_options_of_compare_are_on_the_page_and_there():
    program = typer.main.get_command(cli)
    known = {option for each in program.commands["compare"].params for option in each.opts}
    assert set(re.findall(r"^\| `(--[a-z]+)`", part("compare"), re.M)) <= known


def test_the_yaml_of_the_page_is_read():
    for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S):
        content = yaml.safe_load(block)
        for event in content.get("events", ()):
            TypeAdapter(Event).validate_python(event)
        if "comparison" in content:
            Comparison.model_validate(content["comparison"])
