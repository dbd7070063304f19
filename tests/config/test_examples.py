"""What documents and templates show is true: examples are valid, bounds and flags are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from annotated_types import Ge, Le

from cardionets_core.config.read import Document
from cardionets_core.config.site import Device, Policy, Prepare, SiteConfig, read_site
from cardionets_core.config.study import Study
from cardionets_core.config.tracking import Tracking
from simulation.writers.layout import OF_PAIRS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "site_configs").glob("*.md"), ROOT / "README.md"])
FORMATS = (ROOT / "docs" / "formats.md").read_text()
TEMPLATE = (ROOT / "site_configs" / "template.yaml").read_text()


def test_every_example_of_the_documents_is_a_valid_site(tmp_path: Path) -> None:
    examples = [
        text for path in DOCUMENTS for text in re.findall(r"```ya?ml\n(.*?)```", path.read_text(), re.S)
    ]
    sites = [text for text in examples if "source" in yaml.safe_load(text)]
    assert sites
    for text in sites:
        (tmp_path / "site.yaml").write_text(text)
        assert read_site(tmp_path / "site.yaml").policy.phases
    # Parts of a scenario are read by tests/house/test_simulation_document.py.
    others = [yaml.safe_load(text) for text in examples if text not in sites]
    parts_of_studies = [content for content in others if "generation" in content]
    assert parts_of_studies
    for content in parts_of_studies:
        phases = [{"task": "ecg_mae", "rounds": 1}]
        assert Study.model_validate({"name": "s", "phases": phases, **content}).models
    others = [content for content in others if content not in parts_of_studies]
    assert {key for content in others for key in content} <= {"tracking", "events", "comparison"}
    for content in others:
        if "tracking" in content:
            Tracking.model_validate(content["tracking"])


def required(document: type[Document], prefix: str = "") -> set[str]:
    names = {name: field.annotation for name, field in document.model_fields.items() if field.is_required()}
    inner = (required(kind, f"{name}.") for name, kind in names.items() if kind is Policy)
    return {prefix + name for name in names}.union(*inner)


def test_the_template_says_what_must_be_there_and_shows_the_defaults(tmp_path: Path) -> None:
    (told,) = re.findall(r"^# Must be there: (.*?)\.[ \n]", TEMPLATE, re.M)
    assert set(told.split(", ")) == required(SiteConfig)
    least = "site: our-hospital\nsource: {kind: local_site, ecg: {format: wfdb, folder: ecg}}\n"
    (tmp_path / "site.yaml").write_text(least + f"policy: {{phases: [{', '.join(OF_PAIRS)}]}}\n")
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    assert read_site(tmp_path / "template.yaml") == read_site(tmp_path / "site.yaml")


@pytest.mark.parametrize("document", [Device, Prepare, Policy])
def test_the_template_says_the_bounds(document: type[Document]) -> None:
    comments = " ".join(line.strip("# ") for line in TEMPLATE.splitlines() if line.lstrip().startswith("#"))
    for field in document.model_fields.values():
        low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
        high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
        if low is not None:
            assert (f"at least {low}." if high is None else f"{low} to {high}.") in comments


def test_the_flags_that_are_documented_are_those_of_the_code() -> None:
    table = FORMATS.partition("## What a kept record may be flagged with")[2].partition("## ")[0]
    flags = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.M))
    notes = set(re.findall(r"`([a-z0-9-]+)`", table.partition("Doubts about tables")[2]))
    code = "\n".join(path.read_text() for path in (ROOT / "cardionets_core" / "data").rglob("*.py"))
    assert len(flags) > 15 and len(notes) > 5
    assert {name for name in flags | notes if f'"{name}"' not in code} == set()
    shapes = (
        r'flags\.add\("([a-z-]+)"\)',
        r'flags \| \{"([a-z-]+)"\}',
        r'flags = \{"([a-z-]+)"\}',
        r'_flagged\([a-z]+, "([a-z-]+)"\)',
    )
    used = {name for shape in shapes for name in re.findall(shape, code)}
    quality = (ROOT / "cardionets_core" / "data" / "quality.py").read_text()
    used.update(re.findall('"([a-z-]+)": ', quality.partition("conditions = {")[2].partition("}")[0]))
    assert len(used) > 12 and used <= flags


def test_lines_are_short_enough_to_read() -> None:
    texts = [FORMATS, *(path.read_text() for path in (ROOT / "site_configs").iterdir())]
    long = [
        line for text in texts for line in text.splitlines() if len(line) > 120 and not line.startswith("|")
    ]
    assert long == []
