"""The ``site.yaml`` of a simulated hospital.

Comes in: a plain mapping. Goes out: YAML text. Scalars and lists are written as JSON, which is YAML too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cardionets_core.data.records import VIEWS
from simulation.scenario import DrawnHospital, FolderHospital


def site_document(
    hospital: DrawnHospital | FolderHospital, *, source: dict[str, Any], phases: tuple[str, ...]
) -> dict[str, Any]:
    """All keys of ``SiteConfig``, paths relative to the hospital's folder."""
    role = {"role": "external"} if hospital.external else {}
    policy = hospital.policy.model_dump()
    # Made-up patients have nothing to hide, so a study may ask for noise that repeats.
    privacy = {"maximum_epsilon": policy.pop("maximum_epsilon"), "deterministic": True}
    drawn = hospital.drawn_views if isinstance(hospital, DrawnHospital) else frozenset()
    views = {"views": [view for view in VIEWS if view in drawn]} if "sax" in drawn else {}
    return {
        "schema_version": 1,
        "site": hospital.site,
        "source": source,
        "device": {"name": "cpu", "threads": 1},
        "prepare": {"split": hospital.split.model_dump(), **views, "workers": 1},
        "policy": {"phases": list(phases), **role, **policy, "privacy": privacy},
        "folders": {"cache": "cache", "state": "state", "secret": "secret/pseudonym.key"},
    }


def write_site(path: Path, document: dict[str, Any]) -> None:
    """Write the document with a line on where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "# A simulated hospital, written by cardionets-sim.\n" + _yaml(document), encoding="utf-8"
    )


def _yaml(mapping: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in mapping.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:\n" + _yaml(value, indent + "  "))
        else:
            lines.append(f"{indent}{key}: {json.dumps(value)}\n")
    return "".join(lines)
